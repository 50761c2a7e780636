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
 *
 * Planning. A read or write whose bytes have a place that can be told without waiting for the host
 * needs no thread that blocks: plan turns it into extents of host files, the caller moves the data,
 * and finish ends it. Everything else is for the blocking calls. Between plan and finish a format
 * may hold something for each extent (a claim on the mapping, a reader's mark), which finish gives
 * back; that is why planned requests must be finished whatever becomes of their I/O.
 */
#ifndef STORAGE_BLOCK_H
#define STORAGE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct block;
struct host_file;

enum block_request_kind { BLOCK_REQUEST_READ, BLOCK_REQUEST_CHANGE };

/* What a format keeps for a planned extent; embedded in something of its own. */
struct block_hold {
    struct block *holder;
};

/* The next bytes of the request lie here. */
struct block_extent {
    struct host_file *file; /* NULL: they are zeros */
    uint64_t offset;
    uint64_t bytes;
    struct block_hold *hold; /* NULL: none */
};

#define BLOCK_PLAN_EXTENTS 8u

struct block_plan {
    unsigned count;
    struct block_extent extents[BLOCK_PLAN_EXTENTS];
};

enum block_outcome {
    BLOCK_TRANSFERRED,
    BLOCK_NOT_TRANSFERRED, /* as if it had not been planned; some of it may have been written */
};

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
    /* Appends extents for exactly this range to the plan. False, and whatever it likes appended:
     * only the blocking call can do it. It waits for no I/O. NULL, both of them: it always says so.
     */
    bool (*plan)(struct block *block, enum block_request_kind kind, uint64_t offset, uint64_t len,
                 struct block_plan *plan);
    void (*finish)(struct block *block, struct block_hold *hold, enum block_outcome outcome);
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
ERR_RESULT block_check_vectors(const struct block *block, enum block_request_kind kind,
                               const struct iovec *iovs, int iov_count, uint64_t offset,
                               uint64_t *out_len);
ERR_RESULT block_check_range(const struct block *block, enum block_request_kind kind,
                             uint64_t offset, uint64_t len);

/* Reads from a disk that may end before the range does; NULL has no bytes. What is behind its end
 * reads as zeros. */
ERR_RESULT block_read_padded(struct block *block, const struct iovec *iovs, int iov_count,
                             uint64_t offset);

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

/* False: nothing was planned, use the blocking call. */
bool block_plan(struct block *block, enum block_request_kind kind, uint64_t offset, uint64_t len,
                struct block_plan *out_plan);
/* For formats that pass a part of a request on: appends, and on false drops what it appended. */
bool block_plan_append(struct block *block, enum block_request_kind kind, uint64_t offset,
                       uint64_t len, struct block_plan *plan);
/* One more extent; false when the plan is full. */
bool block_plan_add(struct block_plan *plan, const struct block_extent *extent);
void block_plan_finish(struct block_plan *plan, enum block_outcome outcome);

static inline ERR_RESULT block_close(struct block *block)
{
    return block->ops->close(block);
}

#endif
