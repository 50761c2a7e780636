/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_limit.h - how many requests and bytes a second a disk may do, all its queues together.
 *
 * Thread: any. A disk without limits takes no lock: its queues ask is_set alone. Under limits the
 * lock is held from the look at the clock until what was begun is accounted for, so that two queues
 * do not begin on the same allowance.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_LIMIT_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_LIMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "storage/io_limit.h"
#include "storage/io_request.h"
#include "vmm/devices/virtio/virtio_blk.h"

struct virtio_blk_limit {
    atomic_bool is_any; /* a flag alone: whether there is something to look at under the lock */
    struct lock lock;
    struct io_limit requests GUARDED_BY(&lock);
    struct io_limit bytes GUARDED_BY(&lock);
};

void virtio_blk_limit_init(struct virtio_blk_limit *limit, struct virtio_blk_rates rates);
void virtio_blk_limit_finish(struct virtio_blk_limit *limit);
void virtio_blk_limit_set(struct virtio_blk_limit *limit, struct virtio_blk_rates rates);

static inline bool virtio_blk_limit_is_any(struct virtio_blk_limit *limit)
{
    return atomic_load(&limit->is_any);
}

/* When the next request may begin; 0 without limits. */
uint64_t virtio_blk_limit_begin_ns(struct virtio_blk_limit *limit);

bool virtio_blk_limit_is_open_locked(struct virtio_blk_limit *limit) REQUIRES(&limit->lock);
void virtio_blk_limit_use_locked(struct virtio_blk_limit *limit, const struct io_request *io)
    REQUIRES(&limit->lock);

#endif
