/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_loop.c - epoll with timers and a message queue.
 *
 * A source that is removed inside a turn may still stand in the events that epoll has returned, so
 * removal only marks it and the turn's end frees it.
 */
#include "base/event_loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"

#define EVENTS_PER_TURN 32

struct event_source {
    struct event_loop *loop;
    struct event_source *next;
    int fd;
    bool is_timer; /* then fd is ours */
    bool is_removed;
    void (*on_events)(void *context, uint32_t events);
    void (*on_timer)(void *context);
    void *context;
};

struct message {
    struct message *next;
    void (*callback)(void *context);
    void *context;
};

struct event_loop {
    int epoll_fd;
    int wake_fd;
    atomic_bool is_stopping; /* a flag alone; wake_fd makes the loop look at it */
    bool has_removed;
    bool is_turning;
    struct event_source *sources; /* owned */
    struct lock lock;
    struct message *first_message GUARDED_BY(&lock); /* owned */
    struct message **last_message GUARDED_BY(&lock);
};

struct err *event_loop_create(struct event_loop **out_loop) LOCK_UNCHECKED
{
    struct event_loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL)
        return err_new(ERR_NO_MEMORY, "event loop");

    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    lock_init(&loop->lock, LOCK_LOOP);
    loop->last_message = &loop->first_message;

    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) != 0) {
        struct err *err = err_errno(errno, "create an event loop");
        event_loop_destroy(loop);
        return err;
    }
    *out_loop = loop;
    return NULL;
}

static void source_free(struct event_source *source)
{
    if (source->is_timer)
        cleanup_fd(&source->fd);
    free(source);
}

void event_loop_destroy(struct event_loop *loop) LOCK_UNCHECKED
{
    if (loop == NULL)
        return;
    while (loop->sources != NULL) {
        struct event_source *next = loop->sources->next;
        source_free(loop->sources);
        loop->sources = next;
    }
    while (loop->first_message != NULL) {
        struct message *next = loop->first_message->next;
        free(loop->first_message);
        loop->first_message = next;
    }
    cleanup_fd(&loop->epoll_fd);
    cleanup_fd(&loop->wake_fd);
    lock_finish(&loop->lock);
    free(loop);
}

static void wake(struct event_loop *loop)
{
    uint64_t one = 1;

    /* A full counter still wakes the reader, so a short write is no loss. */
    ssize_t written = write(loop->wake_fd, &one, sizeof(one));
    (void)written;
}

static void free_removed(struct event_loop *loop)
{
    struct event_source **link = &loop->sources;

    while (*link != NULL) {
        struct event_source *source = *link;
        if (source->is_removed) {
            *link = source->next;
            source_free(source);
        } else {
            link = &source->next;
        }
    }
    loop->has_removed = false;
}

/* Only the messages that were there on entry: one that posts again does not hold up the loop. */
static void run_messages(struct event_loop *loop)
{
    uint64_t count;
    ssize_t got = read(loop->wake_fd, &count, sizeof(count));
    (void)got;

    lock_acquire(&loop->lock);
    struct message *message = loop->first_message;
    loop->first_message = NULL;
    loop->last_message = &loop->first_message;
    lock_release(&loop->lock);

    while (message != NULL) {
        struct message *next = message->next;
        message->callback(message->context);
        free(message);
        message = next;
    }
}

static void dispatch(struct event_source *source, uint32_t events)
{
    if (source->is_removed)
        return;
    if (!source->is_timer) {
        source->on_events(source->context, events);
        return;
    }
    uint64_t expirations;
    if (read(source->fd, &expirations, sizeof(expirations)) == (ssize_t)sizeof(expirations))
        source->on_timer(source->context);
}

struct err *event_loop_turn(struct event_loop *loop, int timeout_ms)
{
    struct epoll_event events[EVENTS_PER_TURN];

    /* A turn within a turn would free sources that the outer one still has to look at. */
    ASSERT(!loop->is_turning);
    int count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, timeout_ms);
    if (count < 0)
        return errno == EINTR ? NULL : err_errno(errno, "wait for events");

    loop->is_turning = true;
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == NULL)
            run_messages(loop);
        else
            dispatch(events[i].data.ptr, events[i].events);
    }
    loop->is_turning = false;
    if (loop->has_removed)
        free_removed(loop);
    return NULL;
}

struct err *event_loop_run(struct event_loop *loop)
{
    while (!atomic_load(&loop->is_stopping))
        TRY(event_loop_turn(loop, -1));
    atomic_store(&loop->is_stopping, false);
    return NULL;
}

void event_loop_stop(struct event_loop *loop)
{
    atomic_store(&loop->is_stopping, true);
    wake(loop);
}

static struct err *add_source(struct event_loop *loop, struct event_source source, uint32_t events,
                              struct event_source **out_source)
{
    struct event_source *copy = calloc(1, sizeof(*copy));
    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "event source");
    *copy = source;
    copy->loop = loop;

    struct epoll_event event = {.events = events, .data.ptr = copy};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source.fd, &event) != 0) {
        free(copy);
        return err_errno(errno, "watch fd %d", source.fd);
    }
    copy->next = loop->sources;
    loop->sources = copy;
    *out_source = copy;
    return NULL;
}

struct err *event_loop_watch(struct event_loop *loop, int fd, uint32_t events,
                             void (*callback)(void *context, uint32_t events), void *context,
                             struct event_source **out_source)
{
    struct event_source source = {.fd = fd, .on_events = callback, .context = context};

    return add_source(loop, source, events, out_source);
}

void event_source_set_events(struct event_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    int error = epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);

    ASSERT(error == 0);
}

struct err *event_loop_timer(struct event_loop *loop, void (*callback)(void *context),
                             void *context, struct event_source **out_source)
{
    CLEANUP(cleanup_fd) int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0)
        return err_errno(errno, "create a timer");

    struct event_source source = {
        .fd = fd, .is_timer = true, .on_timer = callback, .context = context};
    TRY(add_source(loop, source, EPOLLIN, out_source));
    (void)TAKE_FD(fd); /* the source's */
    return NULL;
}

void event_timer_arm(struct event_source *timer, uint64_t deadline_ns)
{
    /* Zero would disarm: a deadline in the past is one nanosecond after boot. */
    if (deadline_ns == 0)
        deadline_ns = 1;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                           .tv_nsec = (long)(deadline_ns % NS_PER_S)}};
    int error = timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &when, NULL);

    ASSERT(error == 0);
}

void event_timer_disarm(struct event_source *timer)
{
    struct itimerspec never = {0};
    int error = timerfd_settime(timer->fd, 0, &never, NULL);

    ASSERT(error == 0);
}

void event_source_remove(struct event_source *source)
{
    if (source == NULL || source->is_removed)
        return;
    /* Fails when the fd was closed too early: epoll could then report the source after its end. */
    int error = epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    ASSERT(error == 0);
    source->is_removed = true;
    source->loop->has_removed = true;
}

struct err *event_loop_post(struct event_loop *loop, void (*callback)(void *context), void *context)
{
    struct message *message = calloc(1, sizeof(*message));
    if (message == NULL)
        return err_new(ERR_NO_MEMORY, "message to the loop");
    *message = (struct message){.callback = callback, .context = context};

    lock_acquire(&loop->lock);
    *loop->last_message = message;
    loop->last_message = &message->next;
    lock_release(&loop->lock);
    wake(loop);
    return NULL;
}
