/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_pool.h - a few threads that execute requests with blocking calls.
 *
 * Thread: any, but for create and destroy.
 */
#ifndef STORAGE_IO_POOL_H
#define STORAGE_IO_POOL_H

#include "base/err.h"
#include "storage/io_request.h"

#define IO_POOL_THREADS_MAX 8u

struct io_pool;

/* `first_index` numbers its 'disk' threads. */
ERR_RESULT io_pool_create(unsigned thread_count, unsigned first_index, struct io_pool **out_pool);
/* Nothing is in flight. Accepts NULL. */
void io_pool_destroy(struct io_pool *pool);

void io_pool_submit(struct io_pool *pool, struct io_request *request);
/* Takes back those that no thread has taken yet. */
void io_pool_recall(struct io_pool *pool, struct io_list *recalled);
/* An eventfd, readable when requests have been done since it was last read. */
int io_pool_done_fd(const struct io_pool *pool);
/* Appends those that are done. */
void io_pool_take_done(struct io_pool *pool, struct io_list *done);

#endif
