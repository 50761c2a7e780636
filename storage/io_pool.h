/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_pool.h - a few threads that execute requests with blocking calls, for one user or several.
 *
 * Each user gets back what it has submitted, and nothing else; the threads take what waits in the
 * order in which it came, whoever it is of. Thread: any, but for create, join and leave, which are
 * called one at a time.
 */
#ifndef STORAGE_IO_POOL_H
#define STORAGE_IO_POOL_H

#include "base/err.h"
#include "storage/io_request.h"

#define IO_POOL_THREADS_MAX 8u

struct io_pool_user;

/* A pool with its first user. `first_index` numbers its 'disk' threads. */
ERR_RESULT io_pool_create(unsigned thread_count, unsigned first_index,
                          struct io_pool_user **out_user);
/* One more user of the pool that `other` uses. */
ERR_RESULT io_pool_join(const struct io_pool_user *other, struct io_pool_user **out_user);
/* Nothing of it is in flight. The last one ends the threads. Accepts NULL. */
void io_pool_leave(struct io_pool_user *user);

void io_pool_submit(struct io_pool_user *user, struct io_request *request);
/* Takes back those of the user that no thread has taken yet. */
void io_pool_recall(struct io_pool_user *user, struct io_list *recalled);
/* An eventfd, readable when requests of the user have been done since it was last read. */
int io_pool_done_fd(const struct io_pool_user *user);
/* Appends those that are done. */
void io_pool_take_done(struct io_pool_user *user, struct io_list *done);

#endif
