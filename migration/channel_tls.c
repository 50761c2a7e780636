/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_tls.c - TLS over a socket that never blocks.
 *
 * OpenSSL's object is not for two threads at once, but one thread sends and another receives. So
 * each call into it holds a lock, and waiting for the socket happens outside of it; only a send
 * whose buffer is full waits inside, for the far side to take bytes.
 *
 * Records are gathered here and handed to the socket many at a time: a send call for each record of
 * 16 KiB costs a tenth of the throughput.
 */
#include "migration/channel_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "migration/openssl.h"
#include "migration/tls_identity.h"

#define OUT_BYTES (256u * KIB)

/* Far below the 2^24.5 records that one AES-GCM key may protect. */
#define KEY_BYTES_MAX ((uint64_t)64 * GIB)

struct tls_channel {
    struct channel base;
    struct lock lock;
    SSL *ssl;         /* owned */
    int fd;           /* owned */
    int interrupt_fd; /* owned; readable once interrupted */
    uint8_t *out;     /* owned; records on their way to the socket */
    size_t out_bytes;
    struct err *io_err; /* what the socket said, while OpenSSL only knows that it failed */
    uint64_t blocked_ns;
    uint64_t key_bytes;
    uint32_t silence_ms;
};

static void tls_destroy(struct channel *channel);

static struct tls_channel *self_of(struct channel *channel)
{
    return CONTAINER_OF(channel, struct tls_channel, base);
}

static void cleanup_self(struct tls_channel **self)
{
    if (*self != NULL)
        tls_destroy(&(*self)->base);
}

/* Until the socket is ready for `events`; *out_ready false: the deadline came first. */
static struct err *wait_socket(struct tls_channel *self, short events, uint64_t deadline_ns,
                               bool *out_ready)
{
    struct pollfd fds[2] = {{.fd = self->fd, .events = events},
                            {.fd = self->interrupt_fd, .events = POLLIN}};

    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        uint64_t left_ms = deadline_ns > now_ns ? divide_up(deadline_ns - now_ns, NS_PER_MS) : 0;
        int count = poll(fds, 2, (int)MIN(left_ms, (uint64_t)60000));

        if (count < 0 && errno != EINTR)
            return err_errno(errno, "wait for '%s'", self->base.peer);
        if (count > 0 && fds[1].revents != 0)
            return err_new(ERR_CANCELLED, "the connection to '%s' was given up", self->base.peer);
        *out_ready = count > 0;
        if (count > 0 || clock_monotonic_ns() >= deadline_ns)
            return NULL;
    }
}

static struct err *wait_or_silent(struct tls_channel *self, short events)
{
    bool is_ready = false;

    TRY(wait_socket(self, events, clock_monotonic_ns() + (uint64_t)self->silence_ms * NS_PER_MS,
                    &is_ready));
    if (!is_ready)
        return err_new(ERR_TIMEOUT, "'%s' has been silent for %u s; is the network up?",
                       self->base.peer, self->silence_ms / 1000);
    return NULL;
}

static struct err *socket_error(const struct tls_channel *self, int errnum)
{
    if (errnum == ECONNRESET || errnum == EPIPE)
        return err_new(ERR_IO, "'%s' closed the connection", self->base.peer);
    return err_errno(errnum, "connection to '%s'", self->base.peer);
}

/* Sends all gathered records. The lock is held, or nobody else knows the channel yet. */
static struct err *flush_locked(struct tls_channel *self)
{
    size_t done = 0;

    while (done < self->out_bytes) {
        ssize_t sent = send(self->fd, self->out + done, self->out_bytes - done, MSG_NOSIGNAL);

        if (sent >= 0) {
            done += (size_t)sent;
        } else if (errno == EAGAIN) {
            uint64_t started_ns = clock_monotonic_ns();
            TRY(wait_or_silent(self, POLLOUT));
            __atomic_fetch_add(&self->blocked_ns, clock_monotonic_ns() - started_ns,
                               __ATOMIC_RELAXED); /* a statistic */
        } else if (errno != EINTR) {
            return socket_error(self, errno);
        }
    }
    self->out_bytes = 0;
    return NULL;
}

/* OpenSSL's view of the socket. */

static int bio_write(BIO *bio, const char *data, int len)
{
    struct tls_channel *self = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (self->out_bytes + (size_t)len > OUT_BYTES && self->io_err == NULL)
        self->io_err = flush_locked(self);
    if (self->io_err != NULL || (size_t)len > OUT_BYTES)
        return -1;
    memcpy(self->out + self->out_bytes, data, (size_t)len);
    self->out_bytes += (size_t)len;
    return len;
}

static int bio_read(BIO *bio, char *to, int len)
{
    struct tls_channel *self = BIO_get_data(bio);
    ssize_t got = recv(self->fd, to, (size_t)len, 0);

    BIO_clear_retry_flags(bio);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    else if (got < 0 && self->io_err == NULL)
        self->io_err = socket_error(self, errno);
    return (int)got;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    struct tls_channel *self = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    if (command != BIO_CTRL_FLUSH)
        return 0;
    if (self->io_err == NULL)
        self->io_err = flush_locked(self);
    return self->io_err == NULL ? 1 : -1;
}

static BIO_METHOD *bio_method(void)
{
    static BIO_METHOD *method; /* made once, kept for the life of the process */

    BIO_METHOD *current = __atomic_load_n(&method, __ATOMIC_ACQUIRE); /* pairs with the release */
    if (current != NULL)
        return current;
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ferry socket");
    if (made == NULL)
        return NULL;
    (void)BIO_meth_set_write(made, bio_write);
    (void)BIO_meth_set_read(made, bio_read);
    (void)BIO_meth_set_ctrl(made, bio_ctrl);
    BIO_METHOD *expected = NULL;
    if (!__atomic_compare_exchange_n(&method, &expected, made, false, __ATOMIC_RELEASE,
                                     __ATOMIC_ACQUIRE)) {
        BIO_meth_free(made);
        return expected;
    }
    return made;
}

/* The error of a call that OpenSSL could not finish; NULL: it wants to read first. */
static struct err *call_error_locked(struct tls_channel *self, int result, const char *doing)
{
    int reason = SSL_get_error(self->ssl, result);

    if (self->io_err != NULL)
        return TAKE_PTR(self->io_err);
    if (reason == SSL_ERROR_WANT_READ)
        return NULL;
    if (reason == SSL_ERROR_ZERO_RETURN)
        return err_new(ERR_IO, "'%s' closed the connection", self->base.peer);
    return tls_error(self->ssl, self->base.peer, doing);
}

static struct err *send_part_locked(struct tls_channel *self, const struct iovec *part)
{
    size_t written = 0;

    if (part->iov_len == 0)
        return NULL;
    ERR_clear_error();
    int result = SSL_write_ex(self->ssl, part->iov_base, part->iov_len, &written);
    if (result == 1)
        return NULL;
    struct err *err = call_error_locked(self, result, "send to");
    if (err == NULL)
        err = err_new(ERR_INVALID, "'%s' renegotiates", self->base.peer);
    return err;
}

static struct err *tls_send(struct channel *channel, const struct iovec *parts, size_t count)
{
    struct tls_channel *self = self_of(channel);
    struct err *err = NULL;

    lock_acquire(&self->lock);
    for (size_t i = 0; i < count && err == NULL; i++) {
        self->key_bytes += parts[i].iov_len;
        err = send_part_locked(self, &parts[i]);
    }
    if (err == NULL && self->key_bytes > KEY_BYTES_MAX) {
        self->key_bytes = 0;
        if (SSL_key_update(self->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
            err = tls_error(self->ssl, self->base.peer, "new key for");
    }
    lock_release(&self->lock);
    return err;
}

static struct err *tls_flush(struct channel *channel)
{
    struct tls_channel *self = self_of(channel);

    lock_acquire(&self->lock);
    struct err *err = flush_locked(self);
    lock_release(&self->lock);
    return err;
}

/* What is there now, without waiting; *out_len 0: nothing yet. */
static struct err *receive_once(struct tls_channel *self, uint8_t *to, size_t len, size_t *out_len)
{
    struct err *err = NULL;

    *out_len = 0;
    lock_acquire(&self->lock);
    ERR_clear_error();
    int result = SSL_read_ex(self->ssl, to, len, out_len);
    if (result != 1)
        err = call_error_locked(self, result, "receive from");
    lock_release(&self->lock);
    return err;
}

static struct err *tls_receive(struct channel *channel, void *to, size_t len_min, size_t len_max,
                               size_t *out_len)
{
    struct tls_channel *self = self_of(channel);
    size_t done = 0;

    while (done < len_min) {
        size_t got = 0;

        TRY(receive_once(self, (uint8_t *)to + done, len_max - done, &got));
        done += got;
        if (got == 0)
            TRY(wait_or_silent(self, POLLIN));
    }
    *out_len = done;
    return NULL;
}

static struct err *tls_wait(struct channel *channel, uint64_t deadline_ns, bool *out_ready)
{
    struct tls_channel *self = self_of(channel);

    lock_acquire(&self->lock);
    bool is_buffered = SSL_has_pending(self->ssl) == 1;
    lock_release(&self->lock);
    if (is_buffered) {
        *out_ready = true;
        return NULL;
    }
    return wait_socket(self, POLLIN, deadline_ns, out_ready);
}

static void tls_interrupt(struct channel *channel)
{
    (void)eventfd_write(self_of(channel)->interrupt_fd, 1);
}

static uint64_t tls_blocked_ns(struct channel *channel)
{
    return __atomic_load_n(&self_of(channel)->blocked_ns, __ATOMIC_RELAXED); /* a statistic */
}

static void tls_destroy(struct channel *channel)
{
    struct tls_channel *self = self_of(channel);

    SSL_free(self->ssl);
    if (self->fd >= 0)
        close(self->fd);
    if (self->interrupt_fd >= 0)
        close(self->interrupt_fd);
    err_free(self->io_err);
    free(self->out);
    lock_finish(&self->lock);
    free(self);
}

static const struct channel_ops tls_channel_ops = {
    .name = "tls",
    .send = tls_send,
    .flush = tls_flush,
    .receive = tls_receive,
    .wait = tls_wait,
    .interrupt = tls_interrupt,
    .blocked_ns = tls_blocked_ns,
    .destroy = tls_destroy,
};

static struct err *tls_create(int fd, const char *peer, const struct tls_identity *identity,
                              const struct timeouts *timeouts, struct tls_channel **out_self)
{
    CLEANUP(cleanup_fd) int taken_fd = fd;
    struct tls_channel *created = calloc(1, sizeof(*created));
    if (created == NULL)
        return err_new(ERR_NO_MEMORY, "TLS channel");

    CLEANUP(cleanup_self) struct tls_channel *self = created;
    self->base.ops = &tls_channel_ops;
    (void)strncpy(self->base.peer, peer, sizeof(self->base.peer) - 1);
    lock_init(&self->lock, LOCK_CHANNEL);
    self->silence_ms = timeouts->silence_ms;
    self->fd = TAKE_FD(taken_fd);
    self->interrupt_fd = eventfd(0, EFD_CLOEXEC);
    self->out = malloc(OUT_BYTES);
    self->ssl = SSL_new(tls_identity_context(identity));
    BIO *bio = bio_method() == NULL ? NULL : BIO_new(bio_method());
    if (self->interrupt_fd < 0 || self->out == NULL || self->ssl == NULL || bio == NULL) {
        (void)BIO_free(bio);
        return err_new(ERR_NO_MEMORY, "TLS channel");
    }
    BIO_set_data(bio, self);
    BIO_set_init(bio, 1);
    SSL_set_bio(self->ssl, bio, bio);
    if (fcntl(self->fd, F_SETFL, O_NONBLOCK) != 0)
        return err_errno(errno, "connection to '%s'", peer);
    *out_self = TAKE_PTR(self);
    return NULL;
}

static struct err *handshake(struct tls_channel *self, uint32_t timeout_ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;

    for (;;) {
        bool is_ready = false;

        ERR_clear_error();
        int result = SSL_do_handshake(self->ssl);
        if (result == 1)
            return flush_locked(self);
        struct err *err = call_error_locked(self, result, "TLS handshake with");
        if (err != NULL) {
            /* An alert that tells the other side why may be waiting to be sent. */
            err_free(flush_locked(self));
            return err;
        }
        TRY(wait_socket(self, POLLIN, deadline_ns, &is_ready));
        if (!is_ready)
            return err_new(ERR_TIMEOUT, "'%s' did not finish the TLS handshake within %u s",
                           self->base.peer, timeout_ms / 1000);
    }
}

static struct err *note_fingerprint(struct tls_channel *self)
{
    unsigned len = 0;
    X509 *certificate = SSL_get0_peer_certificate(self->ssl);

    if (certificate == NULL ||
        X509_digest(certificate, EVP_sha256(), self->base.fingerprint, &len) != 1)
        return err_new(ERR_DENIED, "'%s' showed no certificate", self->base.peer);
    return NULL;
}

struct err *channel_tls_connect(int fd, const char *host, const struct tls_identity *identity,
                                const struct timeouts *timeouts, struct channel **out_channel)
{
    CLEANUP(cleanup_self) struct tls_channel *self = NULL;

    TRY(tls_create(fd, host, identity, timeouts, &self));
    SSL_set_connect_state(self->ssl);
    TRY(handshake(self, timeouts->connect_ms));
    TRY(tls_check_host(self->ssl, host));
    TRY(note_fingerprint(self));
    *out_channel = &TAKE_PTR(self)->base;
    return NULL;
}

struct err *channel_tls_accept(int fd, const char *address, const struct tls_identity *identity,
                               const struct timeouts *timeouts, struct channel **out_channel)
{
    CLEANUP(cleanup_self) struct tls_channel *self = NULL;

    TRY(tls_create(fd, address, identity, timeouts, &self));
    SSL_set_accept_state(self->ssl);
    TRY(handshake(self, timeouts->connect_ms));
    TRY(note_fingerprint(self));
    X509_NAME *subject = X509_get_subject_name(SSL_get0_peer_certificate(self->ssl));
    (void)X509_NAME_get_text_by_NID(subject, NID_commonName, self->base.peer,
                                    sizeof(self->base.peer));
    *out_channel = &TAKE_PTR(self)->base;
    return NULL;
}
