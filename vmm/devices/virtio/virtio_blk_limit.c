/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_limit.c - see virtio_blk_limit.h.
 *
 * Tested by: virtio_blk_limit_test.c.
 */
#include "vmm/devices/virtio/virtio_blk_limit.h"

#include "base/checked_math.h"
#include "base/clock.h"

void virtio_blk_limit_init(struct virtio_blk_limit *limit, struct virtio_blk_rates rates)
{
    *limit = (struct virtio_blk_limit){.is_any = false};
    lock_init(&limit->lock, LOCK_DISK_LIMIT);
    virtio_blk_limit_set(limit, rates);
}

void virtio_blk_limit_finish(struct virtio_blk_limit *limit)
{
    lock_finish(&limit->lock);
}

void virtio_blk_limit_set(struct virtio_blk_limit *limit, struct virtio_blk_rates rates)
{
    lock_acquire(&limit->lock);
    uint64_t now = clock_monotonic_ns();
    io_limit_set(&limit->requests, now, rates.requests_per_second);
    io_limit_set(&limit->bytes, now, rates.bytes_per_second);
    atomic_store(&limit->is_any, rates.requests_per_second > 0 || rates.bytes_per_second > 0);
    lock_release(&limit->lock);
}

static uint64_t begin_ns_locked(const struct virtio_blk_limit *limit) REQUIRES(&limit->lock)
{
    return MAX(io_limit_begin_ns(&limit->requests), io_limit_begin_ns(&limit->bytes));
}

uint64_t virtio_blk_limit_begin_ns(struct virtio_blk_limit *limit)
{
    if (!virtio_blk_limit_is_any(limit))
        return 0;
    lock_acquire(&limit->lock);
    uint64_t begin_ns = begin_ns_locked(limit);
    lock_release(&limit->lock);
    return begin_ns;
}

bool virtio_blk_limit_is_open_locked(struct virtio_blk_limit *limit)
{
    return begin_ns_locked(limit) <= clock_monotonic_ns();
}

void virtio_blk_limit_use_locked(struct virtio_blk_limit *limit, const struct io_request *io)
{
    uint64_t now = clock_monotonic_ns();
    bool has_data = io->operation == IO_READ || io->operation == IO_WRITE;

    io_limit_use(&limit->requests, now, 1);
    io_limit_use(&limit->bytes, now, has_data ? io->len : 0);
}
