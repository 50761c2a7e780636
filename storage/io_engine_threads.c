/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_engine_threads.c - an engine that needs nothing of the kernel: a pool does everything.
 * Tested by: io_engine_test.c
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "storage/io_engine_internal.h"

#define POOL_THREADS 8u

struct threads_engine {
    struct io_engine base;
    int wake_fd;
};

static struct threads_engine *self_of(struct io_engine *engine)
{
    return CONTAINER_OF(engine, struct threads_engine, base);
}

static struct err *threads_attach(struct io_engine *engine)
{
    (void)engine;
    return NULL;
}

static void threads_submit(struct io_engine *engine, struct io_request *request)
{
    io_pool_submit(engine->pool, request);
}

static void threads_recall(struct io_engine *engine, struct io_list *recalled)
{
    io_pool_recall(engine->pool, recalled);
}

/* At most an hour, which needs no care about what fits. */
static struct timespec time_until(uint64_t deadline_ns)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t ns = deadline_ns > now ? MIN(deadline_ns - now, 3600 * NS_PER_S) : 0;

    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static void threads_wait(struct io_engine *engine, uint64_t deadline_ns, struct io_list *done)
{
    struct threads_engine *self = self_of(engine);
    struct pollfd fds[] = {{.fd = self->wake_fd, .events = POLLIN},
                           {.fd = io_pool_done_fd(self->base.pool), .events = POLLIN}};
    struct timespec timeout = time_until(deadline_ns);
    eventfd_t count;

    if (ppoll(fds, ARRAY_COUNT(fds), &timeout, NULL) <= 0)
        return; /* the deadline, or a signal */
    if (fds[0].revents != 0)
        (void)eventfd_read(self->wake_fd, &count);
    if (fds[1].revents != 0) {
        (void)eventfd_read(io_pool_done_fd(self->base.pool), &count);
        io_pool_take_done(self->base.pool, done);
    }
}

static void threads_destroy(struct io_engine *engine)
{
    io_pool_leave(engine->pool);
    free(self_of(engine));
}

static const struct io_engine_ops threads_engine_ops = {
    .name = "threads",
    .attach = threads_attach,
    .submit = threads_submit,
    .recall = threads_recall,
    .wait = threads_wait,
    .destroy = threads_destroy,
};

struct err *io_engine_threads_create(const struct io_engine_options *options,
                                     struct io_engine **out_engine)
{
    struct threads_engine *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "threads of a disk");

    self->base.ops = &threads_engine_ops;
    self->wake_fd = options->wake_fd;
    struct err *err = io_engine_enter_pool(&self->base, options, POOL_THREADS);
    if (err != NULL) {
        free(self);
        return err;
    }
    *out_engine = &self->base;
    return NULL;
}
