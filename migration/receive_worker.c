/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receive_worker.c - see receive_worker.h. Tested by: tests/system.
 */
#include "migration/receive_worker.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/thread.h"
#include "migration/channel_tls.h"
#include "migration/target.h"
#include "migration/tls_identity.h"

struct worker {
    const struct receive_worker_config *config;
    struct tls_identity *identity; /* owned */
    struct target *target;         /* owned */
};

/* A socket that becomes a channel by its TLS handshake. */
struct incoming_tls {
    struct incoming base;
    const struct worker *worker;
    int fd; /* owned */
};

static struct err *incoming_tls_open(struct incoming *incoming, struct channel **out_channel)
{
    struct incoming_tls *self = CONTAINER_OF(incoming, struct incoming_tls, base);

    return channel_tls_accept(TAKE_FD(self->fd), self->worker->config->address,
                              self->worker->identity, &timeouts_default, out_channel);
}

static void incoming_tls_destroy(struct incoming *incoming)
{
    struct incoming_tls *self = CONTAINER_OF(incoming, struct incoming_tls, base);

    cleanup_fd(&self->fd);
    free(self);
}

static const struct incoming_ops incoming_tls_ops = {
    .open = incoming_tls_open,
    .destroy = incoming_tls_destroy,
};

/* The descriptor that came with the next byte; -1 at the end. */
static int receive_fd(int pass_fd)
{
    char byte;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr header; /* for its alignment */
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    int fd = -1;

    if (recvmsg(pass_fd, &message, MSG_CMSG_CLOEXEC) != 1)
        return -1;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

/* Brings data connections to the session, until pass_fd is shut down. */
static void acceptor_main(void *argument)
{
    struct worker *worker = argument;

    for (int fd = receive_fd(worker->config->pass_fd); fd >= 0;
         fd = receive_fd(worker->config->pass_fd)) {
        struct incoming_tls *incoming = calloc(1, sizeof(*incoming));

        if (incoming == NULL) {
            close(fd);
            continue;
        }
        incoming->base.ops = &incoming_tls_ops;
        incoming->worker = worker;
        incoming->fd = fd;
        struct err *err = target_add(worker->target, &incoming->base);
        if (err != NULL)
            log_err(LOG_WARNING, "data connection dropped", err);
    }
}

static struct err *serve(struct worker *worker)
{
    const struct receive_worker_config *config = worker->config;
    CLEANUP(cleanup_fd) int fd = config->connection_fd;
    struct target_config target_config = {
        .timeouts = &timeouts_default,
        .machines = machine_source_process(),
        .route = config->route,
    };
    struct channel *channel = NULL;
    struct thread *acceptor = NULL;

    TRY(tls_identity_load(config->certificates, &worker->identity));
    TRY(channel_tls_accept(TAKE_FD(fd), config->address, worker->identity, &timeouts_default,
                           &channel));
    TRY(target_create(channel, &target_config, &worker->target));
    TRY(thread_create(ROLE_SESSION, 1, acceptor_main, worker, &acceptor));
    struct err *err = target_run(worker->target);
    (void)shutdown(config->pass_fd, SHUT_RDWR);
    thread_join(acceptor);
    return err;
}

enum receive_worker_exit receive_worker_run(const struct receive_worker_config *config)
{
    struct worker worker = {.config = config};
    enum receive_worker_exit result = RECEIVE_WORKER_ANSWERED;
    struct err *err = serve(&worker);

    if (worker.target != NULL && target_has_moved(worker.target)) {
        log_info("a machine has arrived", "from=%s", config->address);
        result = RECEIVE_WORKER_MOVED;
    }
    if (err != NULL) {
        log_err(LOG_ERROR, "session failed", err_wrap(err, "session with %s", config->address));
        if (result != RECEIVE_WORKER_MOVED)
            result = RECEIVE_WORKER_FAILED;
    }
    target_destroy(worker.target);
    tls_identity_destroy(worker.identity);
    close(config->pass_fd);
    return result;
}
