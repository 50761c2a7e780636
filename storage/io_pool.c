/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_pool.c - see io_pool.h.
 * Tested by: io_engine_test.c
 */
#include "storage/io_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/lock.h"
#include "base/thread.h"

struct io_pool {
    struct thread *threads[IO_POOL_THREADS_MAX]; /* owned */
    int done_fd;                                 /* owned */
    struct lock lock;
    struct lock_condition changed;
    struct io_list waiting GUARDED_BY(&lock);
    struct io_list done GUARDED_BY(&lock);
    bool is_ending GUARDED_BY(&lock);
};

static struct io_request *next_locked(struct io_pool *pool) REQUIRES(&pool->lock)
{
    while (pool->waiting.first == NULL && !pool->is_ending)
        lock_condition_wait(&pool->changed, &pool->lock);
    return io_list_take(&pool->waiting);
}

static void pool_main(void *argument)
{
    struct io_pool *pool = argument;

    lock_acquire(&pool->lock);
    for (;;) {
        struct io_request *request = next_locked(pool);
        if (request == NULL)
            break;
        lock_release(&pool->lock);
        request->err = io_request_execute(request);
        lock_acquire(&pool->lock);
        bool is_first = pool->done.first == NULL;
        io_list_put(&pool->done, request);
        if (is_first)
            (void)eventfd_write(pool->done_fd, 1);
    }
    lock_release(&pool->lock);
}

struct err *io_pool_create(unsigned thread_count, unsigned first_index, struct io_pool **out_pool)
{
    struct io_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        return err_new(ERR_NO_MEMORY, "threads of a disk");

    ASSERT(thread_count > 0 && thread_count <= IO_POOL_THREADS_MAX);
    lock_init(&pool->lock, LOCK_IO_POOL);
    lock_condition_init(&pool->changed);
    pool->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct err *err = pool->done_fd < 0 ? err_errno(errno, "threads of a disk") : NULL;
    for (unsigned i = 0; i < thread_count && err == NULL; i++)
        err = thread_create(ROLE_DISK, first_index + i, pool_main, pool, &pool->threads[i]);
    if (err != NULL) {
        io_pool_destroy(pool);
        return err;
    }
    *out_pool = pool;
    return NULL;
}

void io_pool_destroy(struct io_pool *pool)
{
    if (pool == NULL)
        return;

    lock_acquire(&pool->lock);
    ASSERT(pool->waiting.first == NULL && pool->done.first == NULL);
    pool->is_ending = true;
    lock_condition_broadcast(&pool->changed);
    lock_release(&pool->lock);
    for (unsigned i = 0; i < IO_POOL_THREADS_MAX; i++)
        thread_join(pool->threads[i]);
    if (pool->done_fd >= 0)
        (void)close(pool->done_fd);
    lock_condition_finish(&pool->changed);
    lock_finish(&pool->lock);
    free(pool);
}

void io_pool_submit(struct io_pool *pool, struct io_request *request)
{
    lock_acquire(&pool->lock);
    io_list_put(&pool->waiting, request);
    lock_condition_signal(&pool->changed);
    lock_release(&pool->lock);
}

void io_pool_recall(struct io_pool *pool, struct io_list *recalled)
{
    lock_acquire(&pool->lock);
    io_list_append(recalled, &pool->waiting);
    lock_release(&pool->lock);
}

int io_pool_done_fd(const struct io_pool *pool)
{
    return pool->done_fd;
}

void io_pool_take_done(struct io_pool *pool, struct io_list *done)
{
    lock_acquire(&pool->lock);
    io_list_append(done, &pool->done);
    lock_release(&pool->lock);
}
