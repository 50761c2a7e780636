/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_loop.h - callbacks for file descriptors, timers and messages from other threads.
 *
 * One thread runs a loop; callbacks run on it, one at a time, to completion, and never block.
 * Thread: that of event_loop_run, unless a function says otherwise.
 */
#ifndef BASE_EVENT_LOOP_H
#define BASE_EVENT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct event_loop;
struct event_source; /* a watched fd or a timer */

ERR_RESULT event_loop_create(struct event_loop **out_loop);
/* Frees its sources and forgets messages that have not run. Accepts NULL. */
void event_loop_destroy(struct event_loop *loop);

/* Runs callbacks until event_loop_stop. Returns an error only if the host's epoll fails. */
ERR_RESULT event_loop_run(struct event_loop *loop);
/* Runs what is ready now and returns; waits at most timeout_ms (-1: for ever) for the first.
 * Not from a callback. */
ERR_RESULT event_loop_turn(struct event_loop *loop, int timeout_ms);
void event_loop_stop(struct event_loop *loop); /* Thread: any. */

/* Calls back while fd is ready. `events` are EPOLLIN | EPOLLOUT; hang-up and error are always
 * reported. The fd stays the caller's and must outlive the source. */
ERR_RESULT event_loop_watch(struct event_loop *loop, int fd, uint32_t events,
                            void (*callback)(void *context, uint32_t events), void *context,
                            struct event_source **out_source);
void event_source_set_events(struct event_source *source, uint32_t events);

/* A timer; unarmed at first. Fires once for each arming, on the monotonic clock. */
ERR_RESULT event_loop_timer(struct event_loop *loop, void (*callback)(void *context), void *context,
                            struct event_source **out_source);
void event_timer_arm(struct event_source *timer, uint64_t deadline_ns);
void event_timer_disarm(struct event_source *timer);

/* Stops calling back, also for an event already reported in this turn. Accepts NULL. */
void event_source_remove(struct event_source *source);

/* Runs callback(context) on the loop's thread, in order of posting. Thread: any. */
ERR_RESULT event_loop_post(struct event_loop *loop, void (*callback)(void *context), void *context);

#endif
