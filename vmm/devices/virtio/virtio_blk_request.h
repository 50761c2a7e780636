/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_request.h - executes one request of a virtio disk.
 *
 * Thread: disk; blocks for as long as the image does.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_REQUEST_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_REQUEST_H

#include "vmm/devices/virtio/virtqueue.h"

struct block;

#define VIRTIO_BLK_SECTOR_BYTES 512u
#define VIRTIO_BLK_SERIAL_BYTES 20u

/* A discarded or zeroed piece is bounded, so that a stop does not wait long for one. */
#define VIRTIO_BLK_DISCARD_SECTORS_MAX ((uint32_t)1 << 18)
#define VIRTIO_BLK_ZERO_SECTORS_MAX    ((uint32_t)1 << 15)

struct virtio_blk_target {
    struct block *block;
    struct virtqueue *queue; /* for its memory only */
    char serial[VIRTIO_BLK_SERIAL_BYTES];
};

/* Does what the chain asks and writes its status. Returns how many bytes were written to it. */
uint32_t virtio_blk_request_execute(const struct virtio_blk_target *target,
                                    const struct virtqueue_chain *chain,
                                    struct iovec iovs[VIRTIO_REQUEST_IOVS]);

#endif
