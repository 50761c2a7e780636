/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_engine.h - executes the requests of one queue of a disk, many at once.
 *
 * An engine belongs to one thread, its owner, which submits, waits, and gets requests back in the
 * order in which they end. What can be planned (block.h) the uring engine gives to the kernel at
 * once; the rest, and with the threads engine everything, is done with blocking calls by a few
 * threads. A flush is a request like any other: it covers those that had come back when it was
 * submitted, which is what a guest may count on.
 *
 * A disk with several queues has an engine for each, which are independent of each other but for
 * these threads: siblings share them, so that a disk does not have more of them than one with one
 * queue.
 *
 * Submitting never waits for the disk. Drained is who has got back as many as were submitted.
 * Thread: the owner, which says so with io_engine_attach; create and destroy any, while there is
 * no owner, and one sibling at a time.
 */
#ifndef STORAGE_IO_ENGINE_H
#define STORAGE_IO_ENGINE_H

#include <stdint.h>

#include "base/err.h"
#include "storage/io_request.h"

#define IO_ENGINE_DEPTH_MAX 1024u

enum io_engine_kind {
    IO_ENGINE_ANY, /* uring, or threads where the kernel refuses that */
    IO_ENGINE_URING,
    IO_ENGINE_THREADS,
};

struct io_engine_options {
    enum io_engine_kind kind;
    unsigned depth;        /* requests in flight at once, at most */
    int wake_fd;           /* an eventfd that ends a wait; the engine empties it */
    unsigned thread_index; /* of the first thread for blocking calls, IO_POOL_THREADS_MAX at most */
    struct io_engine *sibling; /* whose threads it shares; NULL: it has its own */
};

struct io_engine;
struct io_pool_user;

struct io_engine_ops {
    const char *name; /* "uring", "threads" */
    struct err *(*attach)(struct io_engine *engine);
    void (*submit)(struct io_engine *engine, struct io_request *request);
    void (*recall)(struct io_engine *engine, struct io_list *recalled);
    void (*wait)(struct io_engine *engine, uint64_t deadline_ns, struct io_list *done);
    void (*destroy)(struct io_engine *engine);
};

struct io_engine {
    const struct io_engine_ops *ops;
    struct io_pool_user *pool; /* owned */
};

ERR_RESULT io_engine_create(const struct io_engine_options *options, struct io_engine **out_engine);
void io_engine_destroy(struct io_engine *engine); /* drained; accepts NULL */

/* Once, by the owner, before anything else. */
static inline ERR_RESULT io_engine_attach(struct io_engine *engine)
{
    return engine->ops->attach(engine);
}

static inline void io_engine_submit(struct io_engine *engine, struct io_request *request)
{
    engine->ops->submit(engine, request);
}

/* Appends requests that have not begun, which do not come back any more in another way. */
static inline void io_engine_recall(struct io_engine *engine, struct io_list *recalled)
{
    engine->ops->recall(engine, recalled);
}

/* Appends what has ended; waits while there is nothing, until wake_fd is written or the monotonic
 * clock reaches the deadline (UINT64_MAX: for ever). May return early with nothing. */
static inline void io_engine_wait(struct io_engine *engine, uint64_t deadline_ns,
                                  struct io_list *done)
{
    engine->ops->wait(engine, deadline_ns, done);
}

#endif
