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
    unsigned user_count;
    struct lock lock;
    struct lock_condition changed;
    struct io_list waiting GUARDED_BY(&lock);
    bool is_ending GUARDED_BY(&lock);
};

struct io_pool_user {
    struct io_pool *pool;
    int done_fd;         /* owned */
    struct io_list done; /* guarded by the pool's lock */
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
        struct io_pool_user *user = request->pool_user;
        bool is_first = user->done.first == NULL;
        io_list_put(&user->done, request);
        if (is_first)
            (void)eventfd_write(user->done_fd, 1);
    }
    lock_release(&pool->lock);
}

static void pool_destroy(struct io_pool *pool)
{
    lock_acquire(&pool->lock);
    ASSERT(pool->waiting.first == NULL);
    pool->is_ending = true;
    lock_condition_broadcast(&pool->changed);
    lock_release(&pool->lock);
    for (unsigned i = 0; i < IO_POOL_THREADS_MAX; i++)
        thread_join(pool->threads[i]);
    lock_condition_finish(&pool->changed);
    lock_finish(&pool->lock);
    free(pool);
}

static struct err *add_user(struct io_pool *pool, struct io_pool_user **out_user)
{
    struct io_pool_user *user = calloc(1, sizeof(*user));
    if (user == NULL)
        return err_new(ERR_NO_MEMORY, "threads of a disk");

    user->pool = pool;
    user->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (user->done_fd < 0) {
        free(user);
        return err_errno(errno, "threads of a disk");
    }
    pool->user_count++;
    *out_user = user;
    return NULL;
}

struct err *io_pool_create(unsigned thread_count, unsigned first_index,
                           struct io_pool_user **out_user)
{
    struct io_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        return err_new(ERR_NO_MEMORY, "threads of a disk");

    ASSERT(thread_count > 0 && thread_count <= IO_POOL_THREADS_MAX);
    lock_init(&pool->lock, LOCK_IO_POOL);
    lock_condition_init(&pool->changed);
    struct err *err = NULL;
    for (unsigned i = 0; i < thread_count && err == NULL; i++)
        err = thread_create(ROLE_DISK, first_index + i, pool_main, pool, &pool->threads[i]);
    if (err == NULL)
        err = add_user(pool, out_user);
    if (err != NULL)
        pool_destroy(pool);
    return err;
}

struct err *io_pool_join(const struct io_pool_user *other, struct io_pool_user **out_user)
{
    return add_user(other->pool, out_user);
}

void io_pool_leave(struct io_pool_user *user)
{
    if (user == NULL)
        return;

    struct io_pool *pool = user->pool;
    ASSERT(user->done.first == NULL);
    (void)close(user->done_fd);
    free(user);
    if (--pool->user_count == 0)
        pool_destroy(pool);
}

void io_pool_submit(struct io_pool_user *user, struct io_request *request)
{
    struct io_pool *pool = user->pool;

    request->pool_user = user;
    lock_acquire(&pool->lock);
    io_list_put(&pool->waiting, request);
    lock_condition_signal(&pool->changed);
    lock_release(&pool->lock);
}

void io_pool_recall(struct io_pool_user *user, struct io_list *recalled)
{
    struct io_pool *pool = user->pool;
    struct io_list kept = {.first = NULL};

    lock_acquire(&pool->lock);
    for (struct io_request *io = io_list_take(&pool->waiting); io != NULL;
         io = io_list_take(&pool->waiting))
        io_list_put(io->pool_user == user ? recalled : &kept, io);
    io_list_append(&pool->waiting, &kept);
    lock_release(&pool->lock);
}

int io_pool_done_fd(const struct io_pool_user *user)
{
    return user->done_fd;
}

void io_pool_take_done(struct io_pool_user *user, struct io_list *done)
{
    lock_acquire(&user->pool->lock);
    io_list_append(done, &user->done);
    lock_release(&user->pool->lock);
}
