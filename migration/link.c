/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.c - see link.h. Tested by: move_test.c.
 */
#include "migration/link.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/thread.h"

/* At first heartbeats come quickly: the best of many says what a round trip really takes, and how
 * the clocks differ. A short move has no time for many. */
#define FIRST_BEATS   20u
#define FIRST_BEAT_MS 10u
#define QUICK_BEATS   40u
#define QUICK_BEAT_MS 50u

/* Frames that wait to be asked for. The protocol has at most two on their way. */
#define INBOX_FRAMES 4u

struct link {
    struct frame_stream *stream; /* owned */
    const struct timeouts *timeouts;
    void (*failed)(void *context);
    void *context;
    struct thread *thread; /* owned */

    struct lock lock;
    struct lock_condition changed;
    Ferry__MigrationFrame *inbox[INBOX_FRAMES] GUARDED_BY(&lock);
    size_t inbox_count GUARDED_BY(&lock);
    struct err *failure GUARDED_BY(&lock);
    bool is_failed GUARDED_BY(&lock);
    uint64_t round_trip_ns GUARDED_BY(&lock);
    int64_t clock_offset_ns GUARDED_BY(&lock);

    struct lock send_lock; /* one frame at a time */
};

static void fail(struct link *link, struct err *err)
{
    lock_acquire(&link->lock);
    bool is_first = !link->is_failed;
    if (is_first) {
        link->is_failed = true;
        link->failure = err;
        lock_condition_broadcast(&link->changed);
    }
    lock_release(&link->lock);
    if (!is_first) {
        err_free(err);
        return;
    }
    channel_interrupt(frame_stream_channel(link->stream));
    if (link->failed != NULL)
        link->failed(link->context);
}

struct err *link_send(struct link *link, const Ferry__MigrationFrame *frame)
{
    lock_acquire(&link->send_lock);
    struct err *err = frame_stream_send(link->stream, frame, NULL, 0);
    if (err == NULL)
        err = channel_flush(frame_stream_channel(link->stream));
    lock_release(&link->send_lock);
    return err;
}

static struct err *send_heartbeat(struct link *link)
{
    Ferry__MigrationHeartbeat heartbeat = FERRY__MIGRATION_HEARTBEAT__INIT;
    Ferry__MigrationFrame frame;

    heartbeat.sent_ns = clock_monotonic_ns();
    FRAME_BODY(&frame, HEARTBEAT, heartbeat, &heartbeat);
    return link_send(link, &frame);
}

static struct err *answer_heartbeat(struct link *link, uint64_t sent_ns)
{
    Ferry__MigrationHeartbeat reply = FERRY__MIGRATION_HEARTBEAT__INIT;
    Ferry__MigrationFrame frame;

    reply.sent_ns = sent_ns;
    reply.answered_ns = clock_monotonic_ns();
    FRAME_BODY(&frame, HEARTBEAT_REPLY, heartbeat_reply, &reply);
    return link_send(link, &frame);
}

/* The quicker the exchange, the closer its middle is to when the other answered. */
static void note_reply(struct link *link, const Ferry__MigrationHeartbeat *reply)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t round_trip_ns = now_ns - reply->sent_ns;

    lock_acquire(&link->lock);
    if (link->round_trip_ns == 0 || round_trip_ns < link->round_trip_ns) {
        link->round_trip_ns = round_trip_ns;
        link->clock_offset_ns =
            (int64_t)(reply->answered_ns - (reply->sent_ns + round_trip_ns / 2));
    }
    lock_release(&link->lock);
}

static struct err *store(struct link *link, Ferry__MigrationFrame *frame)
{
    lock_acquire(&link->lock);
    bool has_room = link->inbox_count < INBOX_FRAMES;
    if (has_room)
        link->inbox[link->inbox_count++] = frame;
    lock_condition_broadcast(&link->changed);
    lock_release(&link->lock);
    if (has_room)
        return NULL;
    ferry__migration_frame__free_unpacked(frame, NULL);
    return err_new(ERR_INVALID, "'%s' sends frames that nobody asked for",
                   frame_stream_channel(link->stream)->peer);
}

/* Takes the frame. */
static struct err *dispatch(struct link *link, Ferry__MigrationFrame *frame)
{
    struct err *err = NULL;

    switch (frame->body_case) {
    case FERRY__MIGRATION_FRAME__BODY_HEARTBEAT:
        err = answer_heartbeat(link, frame->heartbeat->sent_ns);
        break;
    case FERRY__MIGRATION_FRAME__BODY_HEARTBEAT_REPLY:
        note_reply(link, frame->heartbeat_reply);
        break;
    case FERRY__MIGRATION_FRAME__BODY_ERROR:
        err = error_frame_read(frame->error, frame_stream_channel(link->stream)->peer);
        break;
    default: return store(link, frame);
    }
    ferry__migration_frame__free_unpacked(frame, NULL);
    return err;
}

static struct err *receive_one(struct link *link)
{
    const struct frame_limits limits = {.body_bytes_max = MIGRATION_MESSAGE_BYTES_MAX};
    Ferry__MigrationFrame *frame = NULL;
    size_t payload_bytes = 0;

    TRY(frame_stream_receive(link->stream, limits, &frame, &payload_bytes));
    return dispatch(link, frame);
}

static uint64_t beat_interval_ns(const struct link *link, unsigned beats)
{
    uint32_t interval_ms = link->timeouts->heartbeat_ms;

    if (beats < QUICK_BEATS)
        interval_ms = MIN(beats < FIRST_BEATS ? FIRST_BEAT_MS : QUICK_BEAT_MS, interval_ms);
    return (uint64_t)interval_ms * NS_PER_MS;
}

static struct err *serve(struct link *link)
{
    uint64_t heard_ns = clock_monotonic_ns();
    uint64_t beat_ns = heard_ns;
    unsigned beats = 0;

    for (;;) {
        bool is_ready = false;
        uint64_t now_ns = clock_monotonic_ns();

        if (now_ns >= beat_ns) {
            TRY(send_heartbeat(link));
            beat_ns = now_ns + beat_interval_ns(link, beats++);
        }
        TRY(frame_stream_wait(link->stream, beat_ns, &is_ready));
        if (is_ready) {
            TRY(receive_one(link));
            heard_ns = clock_monotonic_ns();
        } else if (clock_monotonic_ns() - heard_ns >
                   (uint64_t)link->timeouts->silence_ms * NS_PER_MS) {
            return err_new(ERR_TIMEOUT, "'%s' has been silent for %u s; is the network up?",
                           frame_stream_channel(link->stream)->peer,
                           link->timeouts->silence_ms / 1000);
        }
    }
}

static void link_main(void *argument)
{
    struct link *link = argument;

    fail(link, serve(link));
}

struct err *link_create(struct frame_stream *stream, const struct timeouts *timeouts,
                        void (*failed)(void *context), void *context, struct link **out_link)
{
    CLEANUP(cleanup_frame_stream) struct frame_stream *taken = stream;
    struct link *link = calloc(1, sizeof(*link));

    if (link == NULL)
        return err_new(ERR_NO_MEMORY, "link");
    link->timeouts = timeouts;
    link->failed = failed;
    link->context = context;
    link->stream = taken;
    lock_init(&link->lock, LOCK_LINK);
    lock_init(&link->send_lock, LOCK_LINK_SEND);
    lock_condition_init(&link->changed);
    struct err *err = thread_create(ROLE_SESSION, 0, link_main, link, &link->thread);
    if (err != NULL) {
        link->stream = NULL;
        link_destroy(link);
        return err;
    }
    (void)TAKE_PTR(taken);
    *out_link = link;
    return NULL;
}

void link_destroy(struct link *link) LOCK_UNCHECKED
{
    if (link == NULL)
        return;
    if (link->thread != NULL) {
        channel_interrupt(frame_stream_channel(link->stream));
        thread_join(link->thread);
    }
    for (size_t i = 0; i < link->inbox_count; i++)
        ferry__migration_frame__free_unpacked(link->inbox[i], NULL);
    err_free(link->failure);
    lock_condition_finish(&link->changed);
    lock_finish(&link->lock);
    lock_finish(&link->send_lock);
    frame_stream_destroy(link->stream);
    free(link);
}

static struct err *failure_locked(struct link *link) REQUIRES(&link->lock)
{
    return err_new(err_kind(link->failure), "%s", err_message(link->failure));
}

struct err *link_failure(struct link *link)
{
    lock_acquire(&link->lock);
    struct err *err = link->is_failed ? failure_locked(link) : NULL;
    lock_release(&link->lock);
    return err;
}

void link_fail(struct link *link, struct err *err)
{
    fail(link, err);
}

void link_send_error(struct link *link, const struct err *err)
{
    lock_acquire(&link->send_lock);
    frame_stream_send_error(link->stream, err);
    lock_release(&link->send_lock);
}

void link_await_end(struct link *link, uint32_t timeout_ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;

    lock_acquire(&link->lock);
    while (!link->is_failed && clock_monotonic_ns() < deadline_ns)
        (void)lock_condition_wait_until(&link->changed, &link->lock, deadline_ns);
    lock_release(&link->lock);
}

struct err *link_wait(struct link *link, Ferry__MigrationFrame__BodyCase expected,
                      uint32_t timeout_ms, Ferry__MigrationFrame **out_frame)
{
    const char *peer = frame_stream_channel(link->stream)->peer;
    uint64_t deadline_ns = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    Ferry__MigrationFrame *frame = NULL;
    struct err *err = NULL;

    lock_acquire(&link->lock);
    while (link->inbox_count == 0 && !link->is_failed && clock_monotonic_ns() < deadline_ns)
        (void)lock_condition_wait_until(&link->changed, &link->lock, deadline_ns);
    if (link->inbox_count > 0) {
        frame = link->inbox[0];
        link->inbox_count--;
        memmove(link->inbox, link->inbox + 1, link->inbox_count * sizeof(link->inbox[0]));
    } else if (link->is_failed) {
        err = failure_locked(link);
    } else {
        err = err_new(ERR_TIMEOUT, "'%s' sent no '%s' within %u s", peer, frame_name(expected),
                      timeout_ms / 1000);
    }
    lock_release(&link->lock);
    if (err != NULL)
        return err;
    if (frame->body_case != expected) {
        err = err_new(ERR_INVALID, "'%s' sent '%s' where '%s' belongs", peer,
                      frame_name(frame->body_case), frame_name(expected));
        ferry__migration_frame__free_unpacked(frame, NULL);
        return err;
    }
    *out_frame = frame;
    return NULL;
}

uint64_t link_round_trip_ns(struct link *link)
{
    lock_acquire(&link->lock);
    uint64_t round_trip_ns = link->round_trip_ns;
    lock_release(&link->lock);
    return round_trip_ns;
}

int64_t link_clock_offset_ns(struct link *link)
{
    lock_acquire(&link->lock);
    int64_t clock_offset_ns = link->clock_offset_ns;
    lock_release(&link->lock);
    return clock_offset_ns;
}
