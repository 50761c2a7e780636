/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_wake.c - see loop_wake.h.
 */
#include "vmm/machine/loop_wake.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/event_loop.h"

struct loop_wake {
    int fd;
    struct event_source *source;
    void (*callback)(void *context);
    void *context;
};

static void on_wake(void *context, uint32_t events)
{
    struct loop_wake *wake = context;
    uint64_t count;

    (void)events;
    ssize_t got = read(wake->fd, &count, sizeof(count));
    (void)got; /* nothing to read is another callback's work done already */
    wake->callback(wake->context);
}

struct err *loop_wake_create(struct event_loop *loop, void (*callback)(void *context),
                             void *context, struct loop_wake **out_wake)
{
    struct loop_wake *wake = calloc(1, sizeof(*wake));
    if (wake == NULL)
        return err_new(ERR_NO_MEMORY, "wake-up");
    wake->callback = callback;
    wake->context = context;
    wake->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    struct err *err = wake->fd < 0
                          ? err_errno(errno, "create an eventfd")
                          : event_loop_watch(loop, wake->fd, EPOLLIN, on_wake, wake, &wake->source);
    if (err != NULL) {
        loop_wake_destroy(wake);
        return err;
    }
    *out_wake = wake;
    return NULL;
}

void loop_wake_destroy(struct loop_wake *wake)
{
    if (wake == NULL)
        return;
    event_source_remove(wake->source);
    cleanup_fd(&wake->fd);
    free(wake);
}

void loop_wake(struct loop_wake *wake)
{
    uint64_t one = 1;

    /* A full counter wakes as well. */
    ssize_t written = write(wake->fd, &one, sizeof(one));
    (void)written;
}
