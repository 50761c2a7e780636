/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounded_queue.h - hands pointers from one set of threads to another, and waits when full.
 *
 * Thread: any; push and pop may block. Closing wakes everybody: pushes are refused from then on,
 * pops drain what is left.
 */
#ifndef BASE_BOUNDED_QUEUE_H
#define BASE_BOUNDED_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct bounded_queue;

ERR_RESULT bounded_queue_create(size_t capacity, struct bounded_queue **out_queue);
void bounded_queue_destroy(struct bounded_queue *queue); /* accepts NULL; items are the caller's */

bool bounded_queue_push(struct bounded_queue *queue, void *item);     /* false: closed */
bool bounded_queue_try_push(struct bounded_queue *queue, void *item); /* false: full or closed */
void *bounded_queue_pop(struct bounded_queue *queue);                 /* NULL: closed and empty */
void *bounded_queue_try_pop(struct bounded_queue *queue);             /* NULL: empty */
size_t bounded_queue_count(struct bounded_queue *queue);
void bounded_queue_close(struct bounded_queue *queue);

#endif
