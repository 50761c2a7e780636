/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.c - see block.h.
 * Tested by: block_memory_test.c
 */
#include "storage/block.h"

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
