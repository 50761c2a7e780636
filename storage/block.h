/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.h - a disk: bytes at offsets, whatever they are stored in.
 *
 * Thread: any, several at once; calls may block. Overlapping requests in flight at the same time
 * are ordered in no particular way, as on any disk. Offsets and lengths are bytes; they need no
 * alignment, but the guest's are multiples of 512.
 * A write is durable once a flush that was submitted after its completion has succeeded. A flush
 * that failed fails the image: every later flush fails too, because the kernel may have dropped
 * what it could not write.
 */
#ifndef STORAGE_BLOCK_H
#define STORAGE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct block;

struct block_ops {
    const char *format; /* "raw", "qcow2", "memory" */
    /* All of the vectors, at most VIRTIO_REQUEST_IOVS; past virtual_bytes is ERR_INVALID. */
    struct err *(*read)(struct block *block, const struct iovec *iovs, int iov_count,
                        uint64_t offset);
    struct err *(*write)(struct block *block, const struct iovec *iovs, int iov_count,
                         uint64_t offset);
    struct err *(*flush)(struct block *block);
    /* Reads of the range give zeros afterwards; discard may keep the old content instead. */
    struct err *(*write_zeroes)(struct block *block, uint64_t offset, uint64_t len, bool may_unmap);
    struct err *(*discard)(struct block *block, uint64_t offset, uint64_t len);
    /* The image is clean and durable when it returns; then frees. Errors are logged by the caller.
     */
    struct err *(*close)(struct block *block);
};

struct block {
    const struct block_ops *ops;
    uint64_t virtual_bytes;
    bool is_read_only; /* writes and discards are refused with ERR_STATE */
};

/* The checks that every format makes of a request: its range, its vectors, and that a read-only
 * image is not changed. Gives its length. */
enum block_request_kind { BLOCK_REQUEST_READ, BLOCK_REQUEST_CHANGE };
ERR_RESULT block_check_vectors(const struct block *block, enum block_request_kind kind,
                               const struct iovec *iovs, int iov_count, uint64_t offset,
                               uint64_t *out_len);
ERR_RESULT block_check_range(const struct block *block, enum block_request_kind kind,
                             uint64_t offset, uint64_t len);

static inline ERR_RESULT block_read(struct block *block, const struct iovec *iovs, int iov_count,
                                    uint64_t offset)
{
    return block->ops->read(block, iovs, iov_count, offset);
}

static inline ERR_RESULT block_write(struct block *block, const struct iovec *iovs, int iov_count,
                                     uint64_t offset)
{
    return block->ops->write(block, iovs, iov_count, offset);
}

static inline ERR_RESULT block_flush(struct block *block)
{
    return block->ops->flush(block);
}

static inline ERR_RESULT block_write_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                            bool may_unmap)
{
    return block->ops->write_zeroes(block, offset, len, may_unmap);
}

static inline ERR_RESULT block_discard(struct block *block, uint64_t offset, uint64_t len)
{
    return block->ops->discard(block, offset, len);
}

static inline ERR_RESULT block_close(struct block *block)
{
    return block->ops->close(block);
}

#endif
