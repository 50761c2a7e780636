/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounded_queue.c - see bounded_queue.h.
 */
#include "base/bounded_queue.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/lock.h"

struct bounded_queue {
    size_t capacity;
    struct lock_condition has_room;
    struct lock_condition has_items;
    struct lock lock;
    size_t first GUARDED_BY(&lock);
    size_t count GUARDED_BY(&lock);
    bool is_closed GUARDED_BY(&lock);
    void *items[];
};

struct err *bounded_queue_create(size_t capacity, struct bounded_queue **out_queue)
{
    ASSERT(capacity > 0);

    struct bounded_queue *queue = calloc(1, sizeof(*queue) + capacity * sizeof(queue->items[0]));
    if (queue == NULL)
        return err_new(ERR_NO_MEMORY, "queue of %zu items", capacity);
    queue->capacity = capacity;
    lock_init(&queue->lock, LOCK_QUEUE);
    lock_condition_init(&queue->has_room);
    lock_condition_init(&queue->has_items);
    *out_queue = queue;
    return NULL;
}

void bounded_queue_destroy(struct bounded_queue *queue)
{
    if (queue == NULL)
        return;
    lock_condition_finish(&queue->has_room);
    lock_condition_finish(&queue->has_items);
    lock_finish(&queue->lock);
    free(queue);
}

static bool push_locked(struct bounded_queue *queue, void *item) REQUIRES(&queue->lock)
{
    ASSERT(item != NULL);
    if (queue->is_closed || queue->count == queue->capacity)
        return false;
    queue->items[(queue->first + queue->count) % queue->capacity] = item;
    queue->count++;
    lock_condition_signal(&queue->has_items);
    return true;
}

static void *pop_locked(struct bounded_queue *queue) REQUIRES(&queue->lock)
{
    if (queue->count == 0)
        return NULL;
    void *item = queue->items[queue->first];
    queue->first = (queue->first + 1) % queue->capacity;
    queue->count--;
    lock_condition_signal(&queue->has_room);
    return item;
}

bool bounded_queue_push(struct bounded_queue *queue, void *item)
{
    lock_acquire(&queue->lock);
    while (queue->count == queue->capacity && !queue->is_closed)
        lock_condition_wait(&queue->has_room, &queue->lock);
    bool pushed = push_locked(queue, item);
    lock_release(&queue->lock);
    return pushed;
}

bool bounded_queue_try_push(struct bounded_queue *queue, void *item)
{
    lock_acquire(&queue->lock);
    bool pushed = push_locked(queue, item);
    lock_release(&queue->lock);
    return pushed;
}

void *bounded_queue_pop(struct bounded_queue *queue)
{
    lock_acquire(&queue->lock);
    while (queue->count == 0 && !queue->is_closed)
        lock_condition_wait(&queue->has_items, &queue->lock);
    void *item = pop_locked(queue);
    lock_release(&queue->lock);
    return item;
}

void *bounded_queue_try_pop(struct bounded_queue *queue)
{
    lock_acquire(&queue->lock);
    void *item = pop_locked(queue);
    lock_release(&queue->lock);
    return item;
}

size_t bounded_queue_count(struct bounded_queue *queue)
{
    lock_acquire(&queue->lock);
    size_t count = queue->count;
    lock_release(&queue->lock);
    return count;
}

void bounded_queue_close(struct bounded_queue *queue)
{
    lock_acquire(&queue->lock);
    queue->is_closed = true;
    lock_condition_broadcast(&queue->has_items);
    lock_condition_broadcast(&queue->has_room);
    lock_release(&queue->lock);
}
