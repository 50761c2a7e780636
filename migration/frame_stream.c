/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame_stream.c - see frame_stream.h. Tested by: move_test.c.
 */
#include "migration/frame_stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"

/* Enough for any head but a machine's state or description. Reading ahead this far costs a copy of
 * at most so many bytes of payload. */
#define READ_AHEAD_BYTES 512u
#define HEAD_BYTES       4096u

struct frame_stream {
    struct channel *channel; /* owned */
    uint8_t *in;             /* owned; received and not yet taken: [in_at, in_end) */
    size_t in_bytes;
    size_t in_at;
    size_t in_end;
};

struct err *frame_stream_create(struct channel *channel, struct frame_stream **out_stream)
{
    CLEANUP(cleanup_channel) struct channel *taken = channel;
    struct frame_stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL)
        return err_new(ERR_NO_MEMORY, "frame stream");
    stream->in_bytes = HEAD_BYTES;
    stream->in = malloc(stream->in_bytes);
    if (stream->in == NULL) {
        free(stream);
        return err_new(ERR_NO_MEMORY, "frame stream");
    }
    stream->channel = TAKE_PTR(taken);
    *out_stream = stream;
    return NULL;
}

void frame_stream_destroy(struct frame_stream *stream)
{
    if (stream == NULL)
        return;
    channel_destroy(stream->channel);
    free(stream->in);
    free(stream);
}

struct channel *frame_stream_channel(struct frame_stream *stream)
{
    return stream->channel;
}

struct err *frame_stream_send(struct frame_stream *stream, const Ferry__MigrationFrame *frame,
                              const uint8_t *payload, size_t payload_bytes)
{
    uint8_t small[HEAD_BYTES];
    CLEANUP(cleanup_free) uint8_t *large = NULL;
    size_t bytes_max = frame_head_bytes_max(frame);

    if (bytes_max > sizeof(small)) {
        large = malloc(bytes_max);
        if (large == NULL)
            return err_new(ERR_NO_MEMORY, "frame of %zu bytes", bytes_max);
    }
    uint8_t *head = large != NULL ? large : small;
    struct writer out = writer_of(head, bytes_max);
    TRY(frame_pack_head(frame, payload_bytes, &out));

    struct iovec parts[2] = {
        {.iov_base = head, .iov_len = (size_t)(out.at - head)},
        {.iov_base = (void *)payload, .iov_len = payload_bytes},
    };
    return channel_send(stream->channel, parts, payload_bytes > 0 ? 2 : 1);
}

struct err *frame_stream_wait(struct frame_stream *stream, uint64_t deadline_ns, bool *out_ready)
{
    if (stream->in_end > stream->in_at) {
        *out_ready = true;
        return NULL;
    }
    return channel_wait(stream->channel, deadline_ns, out_ready);
}

/* Makes room for `more` bytes behind what is buffered. */
static struct err *reserve(struct frame_stream *stream, size_t more)
{
    size_t have = stream->in_end - stream->in_at;

    memmove(stream->in, stream->in + stream->in_at, have);
    stream->in_at = 0;
    stream->in_end = have;
    if (stream->in_bytes - have >= more)
        return NULL;
    uint8_t *larger = realloc(stream->in, have + more);
    if (larger == NULL)
        return err_new(ERR_NO_MEMORY, "frame of %zu bytes", have + more);
    stream->in = larger;
    stream->in_bytes = have + more;
    return NULL;
}

struct err *frame_stream_receive(struct frame_stream *stream, struct frame_limits limits,
                                 Ferry__MigrationFrame **out_frame, size_t *out_payload_bytes)
{
    struct frame_head head;
    size_t more = 0;

    for (;;) {
        size_t received = 0;

        TRY(frame_scan(stream->in + stream->in_at, stream->in_end - stream->in_at, limits, &head,
                       &more));
        if (more == 0)
            break;
        TRY(reserve(stream, MAX(more, (size_t)READ_AHEAD_BYTES)));
        TRY(channel_receive(stream->channel, stream->in + stream->in_end, more,
                            MAX(more, (size_t)READ_AHEAD_BYTES), &received));
        stream->in_end += received;
    }
    TRY(frame_unpack(stream->in + stream->in_at, &head, out_frame));
    stream->in_at += head.head_bytes;
    *out_payload_bytes = head.payload_bytes;
    return NULL;
}

struct err *frame_stream_read(struct frame_stream *stream, uint8_t *to, size_t len)
{
    size_t buffered = MIN(len, stream->in_end - stream->in_at);
    size_t received = 0;

    memcpy(to, stream->in + stream->in_at, buffered);
    stream->in_at += buffered;
    if (buffered == len)
        return NULL;
    return channel_receive(stream->channel, to + buffered, len - buffered, len - buffered,
                           &received);
}

struct err *frame_stream_expect(struct frame_stream *stream,
                                Ferry__MigrationFrame__BodyCase expected, uint32_t timeout_ms,
                                Ferry__MigrationFrame **out_frame)
{
    const struct frame_limits limits = {.body_bytes_max = MIGRATION_FRAME_HEAD_MAX};
    const char *peer = stream->channel->peer;
    Ferry__MigrationFrame *frame = NULL;
    size_t payload_bytes = 0;
    bool is_ready = false;

    TRY(frame_stream_wait(stream, clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS,
                          &is_ready));
    if (!is_ready)
        return err_new(ERR_TIMEOUT, "'%s' sent no '%s' within %u s", peer, frame_name(expected),
                       timeout_ms / 1000);
    TRY(frame_stream_receive(stream, limits, &frame, &payload_bytes));
    if (frame->body_case == expected) {
        *out_frame = frame;
        return NULL;
    }

    struct err *err = frame->body_case == FERRY__MIGRATION_FRAME__BODY_ERROR
                          ? error_frame_read(frame->error, peer)
                          : err_new(ERR_INVALID, "'%s' sent '%s' where '%s' belongs", peer,
                                    frame_name(frame->body_case), frame_name(expected));
    ferry__migration_frame__free_unpacked(frame, NULL);
    return err;
}

struct err *error_frame_read(const Ferry__MigrationError *error, const char *peer)
{
    static const enum err_kind kinds[] = {ERR_INVALID,   ERR_INCOMPATIBLE, ERR_IO,
                                          ERR_NO_MEMORY, ERR_STATE,        ERR_NOT_FOUND,
                                          ERR_TIMEOUT,   ERR_CANCELLED,    ERR_DENIED};
    enum err_kind kind = ERR_IO;

    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++)
        if (strcmp(error->kind, err_kind_name(kinds[i])) == 0)
            kind = kinds[i];
    return err_new(kind, "on %s: %s", peer, error->message);
}

void frame_stream_send_error(struct frame_stream *stream, const struct err *err)
{
    Ferry__MigrationError error = FERRY__MIGRATION_ERROR__INIT;
    Ferry__MigrationFrame frame;

    error.kind = (char *)err_kind_name(err_kind(err));
    error.message = (char *)err_message(err);
    FRAME_BODY(&frame, ERROR, error, &error);
    struct err *unsent = frame_stream_send(stream, &frame, NULL, 0);
    if (unsent == NULL)
        unsent = channel_flush(stream->channel);
    /* The connection may be what failed; the other side then learns by its silence. */
    err_free(unsent);
}
