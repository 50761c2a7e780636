/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_stream_internal.h - messages and descriptors over one Unix socket, for both of its ends.
 *
 * Never blocks: receive and flush do what the socket allows at the moment. Received bytes are kept
 * until they make a whole message, at most CONTROL_MESSAGE_BYTES_MAX of them; descriptors are
 * queued in the order of their messages. Thread: one.
 */
#ifndef CONTROL_CONTROL_STREAM_INTERNAL_H
#define CONTROL_CONTROL_STREAM_INTERNAL_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"

struct control_stream {
    int fd; /* owned */
    uint8_t *in;
    size_t in_start, in_len, in_capacity; /* [in_start, in_start + in_len) is not yet taken */
    int in_fds[CONTROL_FDS_MAX];
    size_t in_fd_count;
    uint8_t *out; /* one message being sent; NULL when there is none */
    size_t out_sent, out_len;
    int out_fds[CONTROL_FDS_MAX]; /* duplicates, until the first byte is sent */
    size_t out_fd_count;
};

void control_stream_init(struct control_stream *stream, int fd); /* takes the fd over */
void control_stream_finish(struct control_stream *stream);       /* closes everything */

/* Reads once. *out_is_closed: the peer will send nothing more. */
ERR_RESULT control_stream_receive(struct control_stream *stream, bool *out_is_closed);
/* The next whole message, or NULL while it is incomplete. */
ERR_RESULT control_stream_next(struct control_stream *stream,
                               const ProtobufCMessageDescriptor *type,
                               ProtobufCMessage **out_message);
/* Moves the descriptors of the message just taken to the caller. */
ERR_RESULT control_stream_take_fds(struct control_stream *stream, size_t count, int *out_fds);

/* Queues a message; there must be none. The fds stay the caller's. */
ERR_RESULT control_stream_put(struct control_stream *stream, const ProtobufCMessage *message,
                              const int *fds, size_t fd_count);
/* Sends what the socket takes; control_stream_is_sending tells whether something is left. */
ERR_RESULT control_stream_flush(struct control_stream *stream);
bool control_stream_is_sending(const struct control_stream *stream);

#endif
