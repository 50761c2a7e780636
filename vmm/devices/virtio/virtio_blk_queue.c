/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_queue.c - the thread that owns a queue of a disk.
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
 * A request that the host has no room for is held: the guest waits for it and is told nothing. All
 * that are held are tried again after a while, which doubles, and when somebody asks for it; what
 * fails again is held again. Other requests go on meanwhile.
 *
 * A stop lets what the disk is doing come to its end. What has only been waiting for a thread, or
 * is held, goes back into the guest's queue: so a stop is short, and a disk without room can be
 * paused, saved and moved like any other.
 *
 * Queues of one disk know nothing of each other but for its limits (virtio_blk_limit.h) and for the
 * threads that their engines share. A flush covers what was answered before it on any queue: the
 * image has all of that when the guest can know of it.
 *
 * Tested by: virtio_blk_test.c, virtio_blk_queues_test.c, virtio_blk_room_test.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "storage/io_pool.h"
#include "vmm/devices/virtio/virtio_blk_internal.h"

/* Of one disk, as they are numbered: the owners of its queues, and the threads of its engines. */
#define DISK_THREADS_MAX (VIRTIO_PCI_QUEUES_MAX + IO_POOL_THREADS_MAX)

#define BATCH            32u
#define RETRY_FIRST_NS   (250 * NS_PER_MS)
#define RETRY_LONGEST_NS (5 * NS_PER_S)

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

static bool is_full(const struct err *err)
{
    return err_errnum(err) == ENOSPC || err_errnum(err) == EDQUOT;
}

static bool is_to_be_held(const struct virtio_blk_queue *queue, const struct io_request *io)
{
    switch (queue->blk->on_error) {
    case VIRTIO_BLK_WAIT_FOR_ROOM: return io->err != NULL && is_full(io->err);
    case VIRTIO_BLK_WAIT: return io->err != NULL && err_kind(io->err) == ERR_IO;
    case VIRTIO_BLK_REPORT: return false;
    }
    UNREACHABLE();
}

static void set_problem(struct virtio_blk_queue *queue, const char *text)
{
    lock_acquire(&queue->lock);
    (void)snprintf(queue->problem, sizeof(queue->problem), "%s", text);
    lock_release(&queue->lock);
}

/* True: no queue waits any more. */
static bool end_problem(struct virtio_blk_queue *queue)
{
    set_problem(queue, "");
    return atomic_fetch_sub(&queue->blk->waiting_queues, 1) == 1;
}

/* Tells everybody what the guest waits for. */
static void begin_problem(struct virtio_blk_queue *queue, const struct err *err)
{
    char text[VIRTIO_BLK_PROBLEM_BYTES];

    (void)snprintf(text, sizeof(text), "disk '%.20s' %s: %s; %s; 'vm-ctl resume' tries at once",
                   queue->target.serial, is_full(err) ? "has no room" : "does not work",
                   err_message(err),
                   is_full(err) ? "free space, and the guest goes on by itself"
                                : "the guest goes on by itself when it works again");
    if (atomic_fetch_add(&queue->blk->waiting_queues, 1) == 0)
        log_guest("guest waits for a disk", "problem=\"%s\"", text);
    queue->retry_after_ns = RETRY_FIRST_NS;
    set_problem(queue, text);
}

static void hold(struct virtio_blk_queue *queue, struct io_request *io)
{
    struct virtio_blk_slot *slot = slot_of(io);

    if (queue->held_count == 0)
        begin_problem(queue, io->err);
    if (!slot->is_held)
        queue->held_count++;
    slot->is_held = true;
    err_free(TAKE_PTR(io->err));
    if (queue->held.first == NULL)
        queue->retry_at_ns = clock_monotonic_ns() + queue->retry_after_ns;
    io_list_put(&queue->held, io);
}

/* It was held, and is done. */
static void release(struct virtio_blk_queue *queue, struct virtio_blk_slot *slot)
{
    slot->is_held = false;
    if (--queue->held_count > 0)
        return;
    if (end_problem(queue))
        log_guest("disk goes on", "disk=%.20s", queue->target.serial);
}

static void answer(struct virtio_blk_queue *queue, struct io_list *done)
{
    struct io_list answered = {.first = NULL};

    for (struct io_request *io = io_list_take(done); io != NULL; io = io_list_take(done)) {
        if (is_to_be_held(queue, io)) {
            hold(queue, io);
            continue;
        }
        if (slot_of(io)->is_held)
            release(queue, slot_of(io));
        virtio_blk_request_end(&queue->target, slot_of(io));
        io_list_put(&answered, io);
    }
    give_back(queue, &answered);
}

static void retry(struct virtio_blk_queue *queue)
{
    struct io_list held = queue->held;

    queue->held.first = NULL;
    queue->retry_after_ns = MIN(queue->retry_after_ns * 2, RETRY_LONGEST_NS);
    for (struct io_request *io = io_list_take(&held); io != NULL; io = io_list_take(&held))
        io_engine_submit(queue->engine, io);
}

/* Is it time, or was it asked for? */
static void retry_if_due(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    bool is_wanted = queue->is_retry_wanted;
    queue->is_retry_wanted = false;
    lock_release(&queue->lock);
    if (queue->held.first != NULL && (is_wanted || clock_monotonic_ns() >= queue->retry_at_ns))
        retry(queue);
}

/* A broken queue has to be popped to be known as one. */
static bool has_waiting(struct virtqueue *ring)
{
    return virtqueue_has_available(ring) || ring->is_broken;
}

/* Takes what waits, at most a batch; without any, asks for a notification. */
static struct io_list take_locked(struct virtio_blk_queue *queue, unsigned batch)
    REQUIRES(&queue->lock)
{
    struct virtqueue *ring = ring_of(queue);
    struct io_list taken = {.first = NULL};
    unsigned count = 0;

    queue->has_more = false;
    do {
        while (queue->is_running && count < batch && queue->free_count > 0) {
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
        if ((count == batch || queue->free_count == 0) && has_waiting(ring)) {
            virtqueue_disarm(ring);
            queue->has_more = count == batch;
            break;
        }
    } while (queue->is_running && virtqueue_arm(ring));
    queue->in_flight += count;
    return taken;
}

static struct io_list take_batch(struct virtio_blk_queue *queue, unsigned batch)
{
    lock_acquire(&queue->lock);
    struct io_list taken = take_locked(queue, batch);
    lock_release(&queue->lock);
    return taken;
}

static void take_unlimited(struct virtio_blk_queue *queue, struct io_list *answered)
{
    struct io_list taken = take_batch(queue, BATCH);

    for (struct io_request *io = io_list_take(&taken); io != NULL; io = io_list_take(&taken)) {
        if (virtio_blk_request_begin(&queue->target, slot_of(io)))
            io_engine_submit(queue->engine, io);
        else
            io_list_put(answered, io);
    }
}

/* One request, if it may begin; what it needs is known before another queue asks. */
static void take_limited(struct virtio_blk_queue *queue, struct io_list *answered)
{
    struct virtio_blk_limit *limit = &queue->blk->limit;

    lock_acquire(&limit->lock);
    struct io_list taken = take_batch(queue, virtio_blk_limit_is_open_locked(limit) ? 1 : 0);
    struct io_request *io = io_list_take(&taken);
    bool is_begun = io != NULL && virtio_blk_request_begin(&queue->target, slot_of(io));
    if (is_begun)
        virtio_blk_limit_use_locked(limit, io);
    lock_release(&limit->lock);
    if (is_begun)
        io_engine_submit(queue->engine, io);
    else if (io != NULL)
        io_list_put(answered, io);
}

static void take(struct virtio_blk_queue *queue)
{
    struct io_list answered = {.first = NULL};

    if (virtio_blk_limit_is_any(&queue->blk->limit))
        take_limited(queue, &answered);
    else
        take_unlimited(queue, &answered);
    give_back(queue, &answered);
}

/* A stop: what has not begun is the guest's again. */
static void put_back(struct virtio_blk_queue *queue)
{
    struct io_list recalled = {.first = NULL};
    uint16_t heads[VIRTIO_BLK_QUEUE_SIZE];
    uint16_t count = 0;
    bool was_waiting = queue->held_count > 0;

    io_engine_recall(queue->engine, &recalled);
    io_list_append(&recalled, &queue->held);
    for (struct io_request *io = io_list_take(&recalled); io != NULL;
         io = io_list_take(&recalled)) {
        heads[count++] = slot_of(io)->chain.head;
        if (slot_of(io)->is_held)
            queue->held_count--;
        slot_of(io)->is_held = false;
        free_slot(queue, slot_of(io));
    }
    if (count == 0)
        return;
    if (was_waiting && queue->held_count == 0)
        (void)end_problem(queue);
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

/* How long the owner may wait when nothing happens. */
static uint64_t deadline_of(struct virtio_blk_queue *queue)
{
    uint64_t deadline = queue->held.first != NULL ? queue->retry_at_ns : UINT64_MAX;

    return queue->has_more ? MIN(deadline, virtio_blk_limit_begin_ns(&queue->blk->limit))
                           : deadline;
}

static void owner_main(void *argument)
{
    struct virtio_blk_queue *queue = argument;
    enum next next = NEXT_STOP;

    if (!say_started(queue, io_engine_attach(queue->engine)))
        return;
    while (next != NEXT_END) {
        struct io_list done = {.first = NULL};
        io_engine_wait(queue->engine, deadline_of(queue), &done);
        answer(queue, &done);
        next = next_of(queue);
        if (next == NEXT_TAKE) {
            retry_if_due(queue);
            take(queue);
        } else {
            queue->has_more = false;
            put_back(queue);
        }
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
    unsigned first_thread = queue->blk->pci.base.instance * DISK_THREADS_MAX;
    const struct io_engine_options options = {.kind = kind,
                                              .depth = VIRTIO_BLK_QUEUE_SIZE,
                                              .wake_fd = notify_fd_of(queue),
                                              .thread_index = first_thread + VIRTIO_PCI_QUEUES_MAX,
                                              .sibling = queue->blk->queues[0].engine};

    queue->slots = calloc(VIRTIO_BLK_QUEUE_SIZE, sizeof(*queue->slots));
    if (queue->slots == NULL)
        return err_new(ERR_NO_MEMORY, "requests");
    while (queue->free_count < VIRTIO_BLK_QUEUE_SIZE) {
        queue->free_slots[queue->free_count] =
            (uint16_t)(VIRTIO_BLK_QUEUE_SIZE - 1 - queue->free_count);
        queue->free_count++;
    }
    TRY(io_engine_create(&options, &queue->engine));
    TRY(thread_create(ROLE_DISK, first_thread + queue->number, owner_main, queue, &queue->thread));
    return wait_started(queue);
}

void virtio_blk_queue_wake(struct virtio_blk_queue *queue)
{
    (void)eventfd_write(notify_fd_of(queue), 1);
}

void virtio_blk_queue_problem(struct virtio_blk_queue *queue, char *out_text, size_t text_bytes)
{
    lock_acquire(&queue->lock);
    (void)snprintf(out_text, text_bytes, "%s", queue->problem);
    lock_release(&queue->lock);
}

bool virtio_blk_queue_retry(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    bool has_problem = queue->problem[0] != '\0';
    queue->is_retry_wanted = has_problem;
    lock_release(&queue->lock);
    if (has_problem)
        virtio_blk_queue_wake(queue);
    return has_problem;
}

static void set_running(struct virtio_blk_queue *queue, bool is_running)
{
    lock_acquire(&queue->lock);
    queue->is_running = is_running;
    lock_release(&queue->lock);
    virtio_blk_queue_wake(queue);
}

void virtio_blk_queue_run(struct virtio_blk_queue *queue)
{
    set_running(queue, true);
}

void virtio_blk_queue_halt_begin(struct virtio_blk_queue *queue)
{
    set_running(queue, false);
}

void virtio_blk_queue_halt_end(struct virtio_blk_queue *queue)
{
    lock_acquire(&queue->lock);
    while (queue->in_flight > 0)
        lock_condition_wait(&queue->changed, &queue->lock);
    lock_release(&queue->lock);
}

static void end_owner(struct virtio_blk_queue *queue)
{
    virtio_blk_queue_halt_begin(queue);
    virtio_blk_queue_halt_end(queue);
    lock_acquire(&queue->lock);
    queue->is_ending = true;
    lock_release(&queue->lock);
    virtio_blk_queue_wake(queue);
    thread_join(queue->thread);
}

void virtio_blk_queue_finish(struct virtio_blk_queue *queue)
{
    if (queue->thread != NULL)
        end_owner(queue);
    io_engine_destroy(queue->engine);
    free(queue->slots);
    lock_condition_finish(&queue->changed);
    lock_finish(&queue->lock);
}
