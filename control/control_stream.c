/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_stream.c - see control_stream_internal.h.
 *
 * A stream socket never merges bytes across a set of descriptors: they arrive with the first byte
 * that they were sent with or with bytes before it, never later. So when a message is whole, its
 * descriptors are in the queue.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "control/control_stream_internal.h"
#include "proto/message_stream.h"

#define RECEIVE_BYTES  (64u * KIB)
#define KEEP_BYTES_MAX (1u * MIB) /* a larger input buffer is freed as soon as it is empty */
#define KERNEL_FDS_MAX 253        /* SCM_MAX_FD */

static_assert(CONTROL_FDS_MAX <= KERNEL_FDS_MAX, "one message carries all descriptors");

union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * KERNEL_FDS_MAX)];
};

void control_stream_init(struct control_stream *stream, int fd)
{
    memset(stream, 0, sizeof(*stream));
    stream->fd = fd;
}

static void close_all(int *fds, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        cleanup_fd(&fds[i]);
    *count = 0;
}

static void free_output(struct control_stream *stream)
{
    close_all(stream->out_fds, &stream->out_fd_count);
    free(stream->out);
    stream->out = NULL;
    stream->out_sent = 0;
    stream->out_len = 0;
}

void control_stream_finish(struct control_stream *stream)
{
    close_all(stream->in_fds, &stream->in_fd_count);
    free_output(stream);
    free(stream->in);
    stream->in = NULL;
    cleanup_fd(&stream->fd);
    stream->fd = -1;
}

/* Makes room for RECEIVE_BYTES behind the bytes that are kept. */
static struct err *reserve_input(struct control_stream *stream)
{
    if (stream->in_start > 0 && stream->in_len > 0)
        memmove(stream->in, stream->in + stream->in_start, stream->in_len);
    stream->in_start = 0;
    if (stream->in_len == 0 && stream->in_capacity > KEEP_BYTES_MAX) {
        free(stream->in);
        stream->in = NULL;
        stream->in_capacity = 0;
    }

    size_t wanted = stream->in_len + RECEIVE_BYTES;
    if (wanted <= stream->in_capacity)
        return NULL;
    size_t capacity = MAX(wanted, 2 * stream->in_capacity);
    uint8_t *grown = realloc(stream->in, capacity);
    if (grown == NULL)
        return err_new(ERR_NO_MEMORY, "control message of %zu bytes", capacity);
    stream->in = grown;
    stream->in_capacity = capacity;
    return NULL;
}

static struct err *keep_fds(struct control_stream *stream, struct msghdr *header)
{
    bool is_too_many = (header->msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
            if (stream->in_fd_count < CONTROL_FDS_MAX) {
                stream->in_fds[stream->in_fd_count++] = fd;
            } else {
                close(fd);
                is_too_many = true;
            }
        }
    }
    return is_too_many ? err_new(ERR_INVALID, "more than %u descriptors at once", CONTROL_FDS_MAX)
                       : NULL;
}

struct err *control_stream_receive(struct control_stream *stream, bool *out_is_closed)
{
    TRY(reserve_input(stream));
    union fd_control control;
    struct iovec iov = {.iov_base = stream->in + stream->in_len, .iov_len = RECEIVE_BYTES};
    struct msghdr header = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };

    ssize_t got = recvmsg(stream->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    *out_is_closed = got == 0 || (got < 0 && errno == ECONNRESET);
    if (got < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNRESET)
            return NULL;
        return err_errno(errno, "receive from a control socket");
    }
    stream->in_len += (size_t)got;
    return keep_fds(stream, &header);
}

struct err *control_stream_next(struct control_stream *stream,
                                const ProtobufCMessageDescriptor *type,
                                ProtobufCMessage **out_message)
{
    *out_message = NULL;
    if (stream->in_len == 0)
        return stream->in_fd_count == 0 ? NULL
                                        : err_new(ERR_INVALID, "descriptors that no message names");

    const uint8_t *data = stream->in + stream->in_start;
    struct message_span span;
    TRY(message_span_find(data, stream->in_len, CONTROL_MESSAGE_BYTES_MAX, &span));
    if (!span.is_complete)
        return NULL;
    TRY(message_unpack(type, data + span.head_bytes, span.body_bytes, out_message));
    stream->in_start += span.head_bytes + span.body_bytes;
    stream->in_len -= span.head_bytes + span.body_bytes;
    return NULL;
}

struct err *control_stream_take_fds(struct control_stream *stream, size_t count, int *out_fds)
{
    if (count > stream->in_fd_count)
        return err_new(ERR_INVALID, "message names %zu descriptors and came with %zu", count,
                       stream->in_fd_count);
    memcpy(out_fds, stream->in_fds, count * sizeof(int));
    stream->in_fd_count -= count;
    memmove(stream->in_fds, stream->in_fds + count, stream->in_fd_count * sizeof(int));
    return NULL;
}

struct err *control_stream_put(struct control_stream *stream, const ProtobufCMessage *message,
                               const int *fds, size_t fd_count)
{
    ASSERT(stream->out == NULL);
    ASSERT(fd_count <= CONTROL_FDS_MAX);
    TRY(message_pack(message, CONTROL_MESSAGE_BYTES_MAX, &stream->out, &stream->out_len));
    stream->out_sent = 0;
    for (size_t i = 0; i < fd_count; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (copy < 0) {
            int errnum = errno;
            free_output(stream);
            return err_errno(errnum, "duplicate a descriptor to send it");
        }
        stream->out_fds[stream->out_fd_count++] = copy;
    }
    return NULL;
}

static void attach_fds(struct control_stream *stream, union fd_control *control,
                       struct msghdr *header)
{
    if (stream->out_fd_count == 0)
        return;
    size_t bytes = stream->out_fd_count * sizeof(int);
    memset(control, 0, sizeof(*control));
    header->msg_control = control->bytes;
    header->msg_controllen = CMSG_SPACE(bytes);
    struct cmsghdr *c = CMSG_FIRSTHDR(header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(c), stream->out_fds, bytes);
}

struct err *control_stream_flush(struct control_stream *stream)
{
    while (stream->out != NULL) {
        union fd_control control;
        struct iovec iov = {.iov_base = stream->out + stream->out_sent,
                            .iov_len = stream->out_len - stream->out_sent};
        struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
        attach_fds(stream, &control, &header);

        ssize_t sent = sendmsg(stream->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return NULL;
        if (sent < 0)
            return err_errno(errno, "send to a control socket");

        close_all(stream->out_fds, &stream->out_fd_count);
        stream->out_sent += (size_t)sent;
        if (stream->out_sent == stream->out_len)
            free_output(stream);
    }
    return NULL;
}

bool control_stream_is_sending(const struct control_stream *stream)
{
    return stream->out != NULL;
}
