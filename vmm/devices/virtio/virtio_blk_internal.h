/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_internal.h - the disk as its device, the owners of its queues and its state see it.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H

#include "base/lock.h"
#include "storage/io_engine.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/devices/virtio/virtio_blk_limit.h"
#include "vmm/devices/virtio/virtio_blk_request.h"
#include "vmm/devices/virtio/virtio_pci.h"

#define VIRTIO_BLK_QUEUE_SIZE    256u
#define VIRTIO_BLK_PROBLEM_BYTES 512u

struct thread;
struct virtio_blk;

/* One virtqueue and the thread that owns it. Slots and their stack are the owner's. */
struct virtio_blk_queue {
    struct virtio_blk *blk;
    unsigned number;
    struct virtio_blk_target target; /* its block is borrowed; changes only while stopped */
    struct io_engine *engine;        /* owned */
    struct thread *thread;           /* owned */
    struct virtio_blk_slot *slots;   /* owned */
    uint16_t free_slots[VIRTIO_BLK_QUEUE_SIZE];
    unsigned free_count;
    bool has_more; /* requests may wait that nobody will notify about */

    /* Requests that the host could not do, in the order in which it said so. */
    struct io_list held;
    unsigned held_count; /* also those that are being tried again */
    uint64_t retry_at_ns;
    uint64_t retry_after_ns; /* doubled from time to time */

    struct lock lock; /* the virtqueue while it runs, and what follows */
    struct lock_condition changed;
    bool is_running GUARDED_BY(&lock);
    bool is_ending GUARDED_BY(&lock);
    unsigned in_flight GUARDED_BY(&lock);
    bool is_retry_wanted GUARDED_BY(&lock);
    char problem[VIRTIO_BLK_PROBLEM_BYTES] GUARDED_BY(&lock); /* "": none */
    enum { OWNER_STARTING, OWNER_READY, OWNER_FAILED } owner GUARDED_BY(&lock);
    struct err *owner_err GUARDED_BY(&lock); /* owned */
};

struct virtio_blk {
    struct virtio_pci pci;
    struct virtio_model model; /* pci's; says how many queues there are */
    struct virtio_blk_queue queues[VIRTIO_PCI_QUEUES_MAX];
    enum virtio_blk_on_error on_error;
    struct virtio_blk_limit limit;
    atomic_uint waiting_queues; /* a counter alone: those of which requests wait for the host */
    char serial[VIRTIO_BLK_SERIAL_BYTES];
    uint64_t capacity_sectors; /* 0: not known before an image is attached */
    bool is_read_only;
    bool is_capacity_restored; /* the guest knows it */
};

/* Starts the owner, of queue 0 first. On failure the queue can still be finished. */
ERR_RESULT virtio_blk_queue_start(struct virtio_blk_queue *queue, enum io_engine_kind kind);
void virtio_blk_queue_init(struct virtio_blk_queue *queue, struct virtio_blk *blk, unsigned number);
void virtio_blk_queue_finish(struct virtio_blk_queue *queue);
void virtio_blk_queue_run(struct virtio_blk_queue *queue);
void virtio_blk_queue_problem(struct virtio_blk_queue *queue, char *out_text, size_t text_bytes);
bool virtio_blk_queue_retry(struct virtio_blk_queue *queue);
/* Lets the owner look at its queue. */
void virtio_blk_queue_wake(struct virtio_blk_queue *queue);
/* Nothing is in flight when the second has returned: with several queues, all come to their end at
 * the same time. */
void virtio_blk_queue_halt_begin(struct virtio_blk_queue *queue);
void virtio_blk_queue_halt_end(struct virtio_blk_queue *queue);

ERR_RESULT virtio_blk_save(struct device *device, ProtobufCMessage **out_state);
ERR_RESULT virtio_blk_validate(struct device *device, uint32_t version,
                               const ProtobufCMessage *state);
ERR_RESULT virtio_blk_apply(struct device *device, const ProtobufCMessage *state);

#endif
