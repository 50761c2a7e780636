/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_queue.c - the thread that owns a disk's queue.
 *
 * How it works. The owner waits in its I/O engine (storage/io_engine.h), which the guest's
 * notification ends as well as the end of a request. Each turn it
 *
 *     answers   what has ended: status to the guest, used entry, one interrupt for all of them
 *     takes     what waits, at most a batch, and submits it; if the queue is empty it asks for the
 *               next notification
 *
 * so a deep queue is worked on without notifications, and a turn has an end. A request is taken
 * once and answered once: from one to the other it has a slot.
 *
 * A stop lets what the disk is doing come to its end. What has only been waiting for a thread goes
 * back into the guest's queue, so a deep queue does not make a stop long.
 *
 * Tested by: virtio_blk_test.c.
 */
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/thread.h"
#include "vmm/devices/virtio/virtio_blk_internal.h"

#define BATCH 32u

static struct virtqueue *ring_of(struct virtio_blk_queue *queue)
{
    return &queue->blk->pci.queues[queue->number].queue;
}

static int notify_fd_of(const struct virtio_blk_queue *queue)
{
    return queue->blk->pci.queues[queue->number].notify_fd;
}

static struct virtio_blk_slot *slot_of(struct io_request *request)
{
    return CONTAINER_OF(request, struct virtio_blk_slot, io);
}

static void free_slot(struct virtio_blk_queue *queue, const struct virtio_blk_slot *slot)
{
    queue->free_slots[queue->free_count++] = (uint16_t)(slot - queue->slots);
}

static void count_down(struct virtio_blk_queue *queue, unsigned count)
{
    lock_acquire(&queue->lock);
    queue->in_flight -= count;
    if (queue->in_flight == 0)
        lock_condition_broadcast(&queue->changed);
    lock_release(&queue->lock);
}

/* Gives answered requests back to the guest. */
static void give_back(struct virtio_blk_queue *queue, struct io_list *answered)
{
    unsigned count = 0;

    if (answered->first == NULL)
        return;
    lock_acquire(&queue->lock);
    for (struct io_request *io = io_list_take(answered); io != NULL; io = io_list_take(answered)) {
        struct virtio_blk_slot *slot = slot_of(io);
        virtqueue_fill(ring_of(queue), slot->chain.head,
                       virtio_blk_request_answer(&queue->target, slot));
        free_slot(queue, slot);
        count++;
    }
    bool wants_interrupt = virtqueue_publish(ring_of(queue));
    lock_release(&queue->lock);
    /* Before the requests count as done: a halted device interrupts nobody. */
    if (wants_interrupt)
        virtio_pci_interrupt(&queue->blk->pci, queue->number);
    count_down(queue, count);
}

static void answer(struct virtio_blk_queue *queue, struct io_list *done)
{
    for (struct io_request *io = done->first; io != NULL; io = io->next)
        virtio_blk_request_end(&queue->target, slot_of(io));
    give_back(queue, done);
}

/* Takes what waits, at most a batch. */
static struct io_list take_locked(struct virtio_blk_queue *queue) REQUIRES(&queue->lock)
{
    struct virtqueue *ring = ring_of(queue);
    struct io_list taken = {.first = NULL};
    unsigned count = 0;

    queue->has_more = false;
    do {
        while (queue->is_running && count < BATCH && queue->free_count > 0) {
            struct virtio_blk_slot *slot = &queue->slots[queue->free_slots[queue->free_count - 1]];
            enum virtqueue_result result = virtqueue_pop(ring, &slot->chain);
            if (result == VIRTQUEUE_BROKEN)
                virtio_pci_fail(&queue->blk->pci);
            if (result != VIRTQUEUE_CHAIN)
                break;
            queue->free_count--;
            io_list_put(&taken, &slot->io);
            count++;
        }
        if (count == BATCH || queue->free_count == 0) {
            virtqueue_disarm(ring);
            queue->has_more = count == BATCH;
            break;
        }
    } while (queue->is_running && virtqueue_arm(ring));
    queue->in_flight += count;
    return taken;
}

static void take(struct virtio_blk_queue *queue)
{
    struct io_list answered = {.first = NULL};

    lock_acquire(&queue->lock);
    struct io_list taken = take_locked(queue);
    lock_release(&queue->lock);
    for (struct io_request *io = io_list_take(&taken); io != NULL; io = io_list_take(&taken)) {
        if (virtio_blk_request_begin(&queue->target, slot_of(io)))
            io_engine_submit(queue->engine, io);
        else
            io_list_put(&answered, io);
    }
    give_back(queue, &answered);
}

/* A stop: what has not begun is the guest's again. */
static void put_back(struct virtio_blk_queue *queue)
{
    struct io_list recalled = {.first = NULL};
    uint16_t heads[VIRTIO_BLK_QUEUE_SIZE];
    uint16_t count = 0;

    io_engine_recall(queue->engine, &recalled);
    for (struct io_request *io = io_list_take(&recalled); io != NULL;
         io = io_list_take(&recalled)) {
        heads[count++] = slot_of(io)->chain.head;
        free_slot(queue, slot_of(io));
    }
    if (count == 0)
        return;
    lock_acquire(&queue->lock);
    virtqueue_put_back(ring_of(queue), heads, count);
    lock_release(&queue->lock);
    count_down(queue, count);
}

enum next { NEXT_TAKE, NEXT_STOP, NEXT_END };

static enum next next_of(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    enum next next = queue->is_running ? NEXT_TAKE : NEXT_STOP;
    if (queue->is_ending)
        next = NEXT_END;
    lock_release(&queue->lock);
    return next;
}

static bool say_started(struct virtio_blk_queue *queue, struct err *err)
{
    bool is_ready = err == NULL;

    lock_acquire(&queue->lock);
    queue->owner = is_ready ? OWNER_READY : OWNER_FAILED;
    queue->owner_err = err;
    lock_condition_broadcast(&queue->changed);
    lock_release(&queue->lock);
    return is_ready;
}

static void owner_main(void *argument)
{
    struct virtio_blk_queue *queue = argument;
    enum next next = NEXT_STOP;

    if (!say_started(queue, io_engine_attach(queue->engine)))
        return;
    while (next != NEXT_END) {
        struct io_list done = {.first = NULL};
        io_engine_wait(queue->engine, queue->has_more ? 0 : UINT64_MAX, &done);
        answer(queue, &done);
        next = next_of(queue);
        if (next == NEXT_TAKE)
            take(queue);
        else
            put_back(queue);
    }
}

void virtio_blk_queue_init(struct virtio_blk_queue *queue, struct virtio_blk *blk, unsigned number)
{
    queue->blk = blk;
    queue->number = number;
    queue->target.queue = ring_of(queue);
    queue->target.serial = blk->serial;
    lock_init(&queue->lock, LOCK_VIRTQUEUE);
    lock_condition_init(&queue->changed);
}

static struct err *wait_started(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    while (queue->owner == OWNER_STARTING)
        lock_condition_wait(&queue->changed, &queue->lock);
    struct err *err = TAKE_PTR(queue->owner_err);
    lock_release(&queue->lock);
    return err;
}

struct err *virtio_blk_queue_start(struct virtio_blk_queue *queue, enum io_engine_kind kind)
{
    unsigned threads = queue->blk->pci.base.instance * VIRTIO_PCI_QUEUES_MAX + queue->number;
    const struct io_engine_options options = {.kind = kind,
                                              .depth = VIRTIO_BLK_QUEUE_SIZE,
                                              .wake_fd = notify_fd_of(queue),
                                              .thread_index = threads * IO_ENGINE_THREADS_MAX};

    queue->slots = calloc(VIRTIO_BLK_QUEUE_SIZE, sizeof(*queue->slots));
    if (queue->slots == NULL)
        return err_new(ERR_NO_MEMORY, "requests");
    while (queue->free_count < VIRTIO_BLK_QUEUE_SIZE) {
        queue->free_slots[queue->free_count] =
            (uint16_t)(VIRTIO_BLK_QUEUE_SIZE - 1 - queue->free_count);
        queue->free_count++;
    }
    TRY(io_engine_create(&options, &queue->engine));
    TRY(thread_create(ROLE_DISK, options.thread_index, owner_main, queue, &queue->thread));
    return wait_started(queue);
}

void virtio_blk_queue_finish(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    ASSERT(queue->in_flight == 0);
    queue->is_ending = true;
    lock_release(&queue->lock);
    if (queue->thread != NULL)
        (void)eventfd_write(notify_fd_of(queue), 1);
    thread_join(queue->thread);
    io_engine_destroy(queue->engine);
    free(queue->slots);
    lock_condition_finish(&queue->changed);
    lock_finish(&queue->lock);
}

void virtio_blk_queue_run(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    queue->is_running = true;
    lock_release(&queue->lock);
    (void)eventfd_write(notify_fd_of(queue), 1);
}

void virtio_blk_queue_halt(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    queue->is_running = false;
    lock_release(&queue->lock);
    (void)eventfd_write(notify_fd_of(queue), 1);

    lock_acquire(&queue->lock);
    while (queue->in_flight > 0)
        lock_condition_wait(&queue->changed, &queue->lock);
    lock_release(&queue->lock);
}
