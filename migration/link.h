/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.h - the control connection of a session while both sides work.
 *
 * A thread of its own receives frames, sends heartbeats and answers them, so that a side which is
 * busy for long is not taken for dead, and a cause that the other side reports is known at once.
 * A link fails once, and keeps why: the other's error frame, a lost connection, silence, or our own
 * link_fail. Every wait, present and future, then returns that reason. Thread: any.
 */
#ifndef MIGRATION_LINK_H
#define MIGRATION_LINK_H

#include <stdint.h>

#include "migration/frame_stream.h"
#include "migration/timeouts.h"

struct link;

/* Takes the stream, also on failure. `failed(context)`, which may be NULL, runs once, on the link's
 * thread or in link_fail. */
ERR_RESULT link_create(struct frame_stream *stream, const struct timeouts *timeouts,
                       void (*failed)(void *context), void *context, struct link **out_link);
void link_destroy(struct link *link); /* accepts NULL */

ERR_RESULT link_send(struct link *link, const Ferry__MigrationFrame *frame);
/* The next frame, which must be of this kind; free it. */
ERR_RESULT link_wait(struct link *link, Ferry__MigrationFrame__BodyCase expected,
                     uint32_t timeout_ms, Ferry__MigrationFrame **out_frame);

/* NULL while the link is sound; else a copy of why not. */
struct err *link_failure(struct link *link);
/* Fails the link for this reason, unless it has one already. Frees err. */
void link_fail(struct link *link, struct err *err);
/* Tells the other side why, best effort. */
void link_send_error(struct link *link, const struct err *err);
/* Waits until the other side has hung up (or the link has failed otherwise), but not longer. Who
 * has the last word does this before it hangs up: TCP throws away what has arrived and was not read
 * yet when the sender closes with something of ours unread, such as a heartbeat. */
void link_await_end(struct link *link, uint32_t timeout_ms);

/* Of the quickest heartbeat so far; 0 before the first. */
uint64_t link_round_trip_ns(struct link *link);
/* The other's monotonic clock minus ours. */
int64_t link_clock_offset_ns(struct link *link);

#endif
