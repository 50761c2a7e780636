/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_request.h - something asked of a disk, and what became of it.
 */
#ifndef STORAGE_IO_REQUEST_H
#define STORAGE_IO_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/limits.h"
#include "storage/block.h"
#include "storage/write_ranges.h"

enum io_operation { IO_READ, IO_WRITE, IO_FLUSH, IO_WRITE_ZEROES, IO_DISCARD };

struct io_pool_user;
struct io_request;

/* What one extent of a planned request is to the engine. */
struct io_part {
    struct io_request *request;
    struct iovec *iovs;
    int iov_count;
    struct write_range range;
};

/* Lives in memory of its user, who leaves it alone from submission until it comes back. */
struct io_request {
    /* What is asked. */
    enum io_operation operation;
    struct block *block;
    struct iovec *iovs; /* of reads and writes */
    int iov_count;
    uint64_t offset;
    uint64_t len; /* of the vectors, where there are some */
    bool may_unmap;
    /* What became of it: NULL or the reason; the user's. */
    struct err *err;
    /* The engine's. */
    struct io_request *next;
    struct io_pool_user *pool_user; /* while it is in a pool */
    struct block_plan plan;
    unsigned parts_left;
    bool must_repeat; /* a part was not transferred as a whole */
    struct io_part parts[BLOCK_PLAN_EXTENTS];
    struct iovec split[VIRTIO_REQUEST_IOVS + BLOCK_PLAN_EXTENTS]; /* iovs, cut at extents */
};

/* Does it with the blocking calls. */
ERR_RESULT io_request_execute(struct io_request *request);

/* Requests in the order in which they were put in. */
struct io_list {
    struct io_request *first;
    struct io_request *last;
};

void io_list_put(struct io_list *list, struct io_request *request);
struct io_request *io_list_take(struct io_list *list); /* NULL: it is empty */
/* Everything of `from`, which is empty afterwards. */
void io_list_append(struct io_list *list, struct io_list *from);

#endif
