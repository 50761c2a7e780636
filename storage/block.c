/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.c - see block.h.
 * Tested by: block_memory_test.c, raw_image_test.c
 */
#include "storage/block.h"

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/io_vector.h"

struct err *block_check_range(const struct block *block, enum block_request_kind kind,
                              uint64_t offset, uint64_t len)
{
    if (kind == BLOCK_REQUEST_CHANGE && block->is_read_only)
        return err_new(ERR_STATE, "the %s image is read-only", block->ops->format);
    if (!range_is_within(offset, len, block->virtual_bytes))
        return err_new(ERR_INVALID, "request of %llu bytes at %llu is outside a disk of %llu bytes",
                       (unsigned long long)len, (unsigned long long)offset,
                       (unsigned long long)block->virtual_bytes);
    return NULL;
}

struct err *block_check_vectors(const struct block *block, enum block_request_kind kind,
                                const struct iovec *iovs, int iov_count, uint64_t offset,
                                uint64_t *out_len)
{
    if (iov_count < 0 || iov_count > (int)VIRTIO_REQUEST_IOVS)
        return err_new(ERR_INVALID, "request of %d vectors; the most is %u", iov_count,
                       VIRTIO_REQUEST_IOVS);

    uint64_t len = io_vector_bytes(iovs, iov_count);
    TRY(block_check_range(block, kind, offset, len));
    *out_len = len;
    return NULL;
}

static void finish_from(struct block_plan *plan, unsigned first, enum block_outcome outcome)
{
    for (unsigned i = first; i < plan->count; i++) {
        struct block_hold *hold = plan->extents[i].hold;
        if (hold != NULL)
            hold->holder->ops->finish(hold->holder, hold, outcome);
    }
    plan->count = first;
}

bool block_plan_append(struct block *block, enum block_request_kind kind, uint64_t offset,
                       uint64_t len, struct block_plan *plan)
{
    unsigned first = plan->count;

    if (block->ops->plan == NULL || (kind == BLOCK_REQUEST_CHANGE && block->is_read_only) ||
        !range_is_within(offset, len, block->virtual_bytes))
        return false;
    if (block->ops->plan(block, kind, offset, len, plan))
        return true;
    finish_from(plan, first, BLOCK_NOT_TRANSFERRED);
    return false;
}

bool block_plan(struct block *block, enum block_request_kind kind, uint64_t offset, uint64_t len,
                struct block_plan *out_plan)
{
    out_plan->count = 0;
    return block_plan_append(block, kind, offset, len, out_plan);
}

bool block_plan_add(struct block_plan *plan, const struct block_extent *extent)
{
    ASSERT(extent->bytes > 0);
    if (plan->count == BLOCK_PLAN_EXTENTS)
        return false;
    plan->extents[plan->count++] = *extent;
    return true;
}

void block_plan_finish(struct block_plan *plan, enum block_outcome outcome)
{
    finish_from(plan, 0, outcome);
}

struct err *block_read_padded(struct block *block, const struct iovec *iovs, int iov_count,
                              uint64_t offset)
{
    uint64_t len = io_vector_bytes(iovs, iov_count);
    uint64_t end = block == NULL ? 0 : block->virtual_bytes;
    uint64_t have = offset >= end ? 0 : MIN(len, end - offset);

    if (have == len)
        return len == 0 ? NULL : block_read(block, iovs, iov_count, offset);

    struct io_vector part = {.count = 0}, rest = {.count = 0};
    io_vector_append_slice(&rest, iovs, iov_count, have, len - have);
    io_vector_zero(rest.iovs, rest.count);
    if (have == 0)
        return NULL;
    io_vector_append_slice(&part, iovs, iov_count, 0, have);
    return block_read(block, part.iovs, part.count, offset);
}
