/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_workers.c - the threads that execute a disk's requests.
 *
 * How it works. All threads sleep in a read of the queue's eventfd; the guest's notification wakes
 * one. It takes a request, wakes another thread if more wait, executes, gives the request back and
 * looks again; who finds nothing asks for the next notification and sleeps. So a lone request
 * costs one wake-up and a deep queue keeps all threads busy without notifications.
 *
 * Tested by: virtio_blk_test.c.
 */
#include <sys/eventfd.h>

#include "base/checked_math.h"
#include "base/thread.h"
#include "vmm/devices/virtio/virtio_blk_internal.h"

enum next { NEXT_REQUEST, NEXT_SLEEP, NEXT_END };

static enum next take_locked(struct virtio_blk *blk, struct virtqueue_chain *chain)
    REQUIRES(&blk->lock)
{
    struct virtqueue *queue = &blk->pci.queues[0].queue;

    if (blk->is_ending)
        return NEXT_END;
    if (!blk->is_running)
        return NEXT_SLEEP;
    do {
        enum virtqueue_result result = virtqueue_pop(queue, chain);
        if (result == VIRTQUEUE_CHAIN) {
            blk->in_flight++;
            virtqueue_disarm(queue);
            if (blk->in_flight < VIRTIO_BLK_WORKERS && virtqueue_has_available(queue))
                (void)eventfd_write(blk->pci.queues[0].notify_fd, 1);
            return NEXT_REQUEST;
        }
        if (result == VIRTQUEUE_BROKEN)
            virtio_pci_fail(&blk->pci);
    } while (virtqueue_arm(queue));
    return NEXT_SLEEP;
}

static enum next take(struct virtio_blk *blk, struct virtqueue_chain *chain)
{
    lock_acquire(&blk->lock);
    enum next next = take_locked(blk, chain);
    lock_release(&blk->lock);
    return next;
}

static void give_back(struct virtio_blk *blk, uint16_t head, uint32_t written)
{
    struct virtqueue *queue = &blk->pci.queues[0].queue;

    lock_acquire(&blk->lock);
    virtqueue_fill(queue, head, written);
    bool wants_interrupt = virtqueue_publish(queue);
    lock_release(&blk->lock);
    /* Before the request counts as done: a halted device interrupts nobody. */
    if (wants_interrupt)
        virtio_pci_interrupt(&blk->pci, 0);

    lock_acquire(&blk->lock);
    blk->in_flight--;
    if (blk->in_flight == 0 && !blk->is_running)
        lock_condition_broadcast(&blk->drained);
    lock_release(&blk->lock);
}

static void worker_main(void *argument)
{
    struct virtio_blk_worker *worker = argument;
    struct virtio_blk *blk = worker->blk;
    int notify_fd = blk->pci.queues[0].notify_fd;
    enum next next = NEXT_SLEEP;

    while (next != NEXT_END) {
        eventfd_t count;
        if (next == NEXT_SLEEP)
            (void)eventfd_read(notify_fd, &count);
        next = take(blk, &worker->chain);
        if (next == NEXT_REQUEST)
            give_back(blk, worker->chain.head,
                      virtio_blk_request_execute(&blk->target, &worker->chain, worker->iovs));
    }
    (void)eventfd_write(notify_fd, 1); /* the next one is to end, too */
}

struct err *virtio_blk_workers_start(struct virtio_blk *blk)
{
    for (unsigned i = 0; i < VIRTIO_BLK_WORKERS; i++) {
        struct virtio_blk_worker *worker = &blk->workers[i];
        worker->blk = blk;
        TRY(thread_create(ROLE_DISK, blk->pci.base.instance * VIRTIO_BLK_WORKERS + i, worker_main,
                          worker, &worker->thread));
    }
    return NULL;
}

void virtio_blk_workers_join(struct virtio_blk *blk)
{
    lock_acquire(&blk->lock);
    blk->is_ending = true;
    lock_release(&blk->lock);
    if (blk->pci.queues[0].notify_fd >= 0)
        (void)eventfd_write(blk->pci.queues[0].notify_fd, 1);
    for (unsigned i = 0; i < VIRTIO_BLK_WORKERS; i++)
        thread_join(blk->workers[i].thread);
}

void virtio_blk_run(struct virtio_pci *pci)
{
    struct virtio_blk *blk = CONTAINER_OF(pci, struct virtio_blk, pci);

    lock_acquire(&blk->lock);
    blk->is_running = true;
    lock_release(&blk->lock);
    (void)eventfd_write(pci->queues[0].notify_fd, 1);
}

void virtio_blk_halt(struct virtio_pci *pci)
{
    struct virtio_blk *blk = CONTAINER_OF(pci, struct virtio_blk, pci);

    lock_acquire(&blk->lock);
    blk->is_running = false;
    while (blk->in_flight > 0)
        lock_condition_wait(&blk->drained, &blk->lock);
    lock_release(&blk->lock);
}
