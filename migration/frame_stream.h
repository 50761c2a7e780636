/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame_stream.h - frames over a channel.
 *
 * Thread: one sender and one receiver at a time.
 */
#ifndef MIGRATION_FRAME_STREAM_H
#define MIGRATION_FRAME_STREAM_H

#include "base/cleanup.h"
#include "migration/channel.h"
#include "proto/frame.h"

struct frame_stream;

/* Takes the channel, also on failure. */
ERR_RESULT frame_stream_create(struct channel *channel, struct frame_stream **out_stream);
void frame_stream_destroy(struct frame_stream *stream); /* and its channel; accepts NULL */
struct channel *frame_stream_channel(struct frame_stream *stream);
DEFINE_CLEANUP(frame_stream, struct frame_stream, frame_stream_destroy)

/* payload may be NULL with 0 bytes. Not flushed. */
ERR_RESULT frame_stream_send(struct frame_stream *stream, const Ferry__MigrationFrame *frame,
                             const uint8_t *payload, size_t payload_bytes);

/* Is there a frame, or the start of one, before the deadline? */
ERR_RESULT frame_stream_wait(struct frame_stream *stream, uint64_t deadline_ns, bool *out_ready);

/* The next frame's head; its payload, if it has one, must be read before the next frame. Free with
 * ferry__migration_frame__free_unpacked(frame, NULL). */
ERR_RESULT frame_stream_receive(struct frame_stream *stream, struct frame_limits limits,
                                Ferry__MigrationFrame **out_frame, size_t *out_payload_bytes);
ERR_RESULT frame_stream_read(struct frame_stream *stream, uint8_t *to, size_t len);

/* Waits for a frame of this kind without payload, for the first frames of a connection. An error
 * frame becomes an err: "on PEER: ...". */
ERR_RESULT frame_stream_expect(struct frame_stream *stream,
                               Ferry__MigrationFrame__BodyCase expected, uint32_t timeout_ms,
                               Ferry__MigrationFrame **out_frame);

/* The error that an error frame carries. */
ERR_RESULT error_frame_read(const Ferry__MigrationError *error, const char *peer);
/* Sends `err` as an error frame and flushes; best effort. */
void frame_stream_send_error(struct frame_stream *stream, const struct err *err);

#endif
