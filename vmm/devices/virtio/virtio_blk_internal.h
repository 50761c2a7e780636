/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_internal.h - the disk as its device, its threads and its state see it.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H

#include "base/lock.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/devices/virtio/virtio_blk_request.h"
#include "vmm/devices/virtio/virtio_pci.h"

#define VIRTIO_BLK_WORKERS 4u

struct thread;
struct virtio_blk;

struct virtio_blk_worker {
    struct virtio_blk *blk;
    struct thread *thread; /* owned */
    struct virtqueue_chain chain;
    struct iovec iovs[VIRTIO_REQUEST_IOVS];
};

struct virtio_blk {
    struct virtio_pci pci;
    struct virtio_blk_target target; /* its block is borrowed; changes only while stopped */
    uint64_t capacity_sectors;       /* 0: not known before an image is attached */
    bool is_read_only;
    bool is_capacity_restored; /* the guest knows it */
    struct lock lock;          /* the queue and what follows */
    struct lock_condition drained;
    bool is_running GUARDED_BY(&lock);
    bool is_ending GUARDED_BY(&lock);
    unsigned in_flight GUARDED_BY(&lock);
    struct virtio_blk_worker workers[VIRTIO_BLK_WORKERS];
};

ERR_RESULT virtio_blk_workers_start(struct virtio_blk *blk);
void virtio_blk_workers_join(struct virtio_blk *blk);
/* Models' run and halt. */
void virtio_blk_run(struct virtio_pci *pci);
void virtio_blk_halt(struct virtio_pci *pci);

ERR_RESULT virtio_blk_save(struct device *device, ProtobufCMessage **out_state);
ERR_RESULT virtio_blk_validate(struct device *device, uint32_t version,
                               const ProtobufCMessage *state);
ERR_RESULT virtio_blk_apply(struct device *device, const ProtobufCMessage *state);

#endif
