/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_request.h - one request of a virtio disk: read, handed on, answered.
 *
 * Thread: the disk's owner (virtio_blk_queue.c); nothing here waits for the disk.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_REQUEST_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_REQUEST_H

#include "storage/io_request.h"
#include "vmm/devices/virtio/virtqueue.h"

#define VIRTIO_BLK_SECTOR_BYTES 512u
#define VIRTIO_BLK_SERIAL_BYTES 20u

/* A discarded or zeroed piece is bounded, so that a stop does not wait long for one. */
#define VIRTIO_BLK_DISCARD_SECTORS_MAX ((uint32_t)1 << 18)
#define VIRTIO_BLK_ZERO_SECTORS_MAX    ((uint32_t)1 << 15)

/* Writes of nothing but zeros: written as they are, as zeroing, or as zeroing that may unmap. */
enum virtio_blk_zeroes { VIRTIO_BLK_ZEROES_OFF, VIRTIO_BLK_ZEROES_ON, VIRTIO_BLK_ZEROES_UNMAP };

struct virtio_blk_target {
    struct block *block;
    struct virtqueue *queue; /* for its memory only */
    const char *serial;      /* VIRTIO_BLK_SERIAL_BYTES of it, without a terminator */
    enum virtio_blk_zeroes zeroes;
};

/* A request from the moment it is taken out of the queue until it is back in it. */
struct virtio_blk_slot {
    struct io_request io;
    struct virtqueue_chain chain;
    struct iovec iovs[VIRTIO_REQUEST_IOVS];
    uint8_t status;
    bool is_held; /* the host could not do it: it waits, or is tried again */
};

/* Reads what the chain asks. True: slot->io is to be executed. False: its status is known. */
bool virtio_blk_request_begin(const struct virtio_blk_target *target, struct virtio_blk_slot *slot);

/* slot->io was executed: logs and frees its error. */
void virtio_blk_request_end(const struct virtio_blk_target *target, struct virtio_blk_slot *slot);

/* Writes the status to the guest. Returns how many bytes were written to the chain. */
uint32_t virtio_blk_request_answer(const struct virtio_blk_target *target,
                                   const struct virtio_blk_slot *slot);

#endif
