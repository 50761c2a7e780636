/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw_image.c - see raw_image.h.
 */
#include "storage/raw/raw_image.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/host_file.h"

#define SECTOR_BYTES 512u

struct raw_image {
    struct block base;
    struct host_file *file; /* owned */
};

static struct host_file *file_of(struct block *block)
{
    return CONTAINER_OF(block, struct raw_image, base)->file;
}

static struct err *raw_read(struct block *block, const struct iovec *iovs, int iov_count,
                            uint64_t offset)
{
    struct io_vector vector = {.count = 0};
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_READ, iovs, iov_count, offset, &len));
    io_vector_append_slice(&vector, iovs, iov_count, 0, len);
    return host_file_read(file_of(block), &vector, offset);
}

static struct err *raw_write(struct block *block, const struct iovec *iovs, int iov_count,
                             uint64_t offset)
{
    struct io_vector vector = {.count = 0};
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_CHANGE, iovs, iov_count, offset, &len));
    io_vector_append_slice(&vector, iovs, iov_count, 0, len);
    return host_file_write(file_of(block), &vector, offset);
}

static struct err *raw_flush(struct block *block)
{
    return block->is_read_only ? NULL : host_file_sync(file_of(block));
}

/* Holes come from discard only: a host that can not punch would leave the old bytes. */
static struct err *raw_write_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                    bool may_unmap)
{
    (void)may_unmap;
    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    return host_file_write_zeroes(file_of(block), offset, len);
}

static struct err *raw_discard(struct block *block, uint64_t offset, uint64_t len)
{
    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    return len == 0 ? NULL : host_file_punch(file_of(block), offset, len);
}

static bool raw_plan(struct block *block, enum block_request_kind kind, uint64_t offset,
                     uint64_t len, struct block_plan *plan)
{
    (void)kind;
    return block_plan_add(
        plan, &(struct block_extent){.file = file_of(block), .offset = offset, .bytes = len});
}

static struct err *raw_close(struct block *block)
{
    struct raw_image *self = CONTAINER_OF(block, struct raw_image, base);
    struct err *err = raw_flush(block);

    host_file_destroy(self->file);
    free(self);
    return err;
}

static const struct block_ops raw_image_ops = {
    .format = "raw",
    .read = raw_read,
    .write = raw_write,
    .flush = raw_flush,
    .write_zeroes = raw_write_zeroes,
    .discard = raw_discard,
    .plan = raw_plan,
    .close = raw_close,
};

struct err *raw_image_open(struct host_file *file, bool is_read_only, struct block **out_block)
{
    struct raw_image *self = calloc(1, sizeof(*self));
    uint64_t bytes = 0;
    struct err *err = self == NULL ? err_new(ERR_NO_MEMORY, "open '%s'", file->path)
                                   : host_file_size(file, &bytes);
    if (err != NULL) {
        host_file_destroy(file);
        free(self);
        return err;
    }

    self->base.ops = &raw_image_ops;
    /* What the last sector lacks reads as zeros; a write to it makes the file longer. */
    self->base.virtual_bytes = align_up(bytes, SECTOR_BYTES);
    self->base.is_read_only = is_read_only;
    self->file = file;
    *out_block = &self->base;
    return NULL;
}

static struct err *set_file_size(struct host_file *file, uint64_t now, uint64_t wanted)
{
    struct err *err = host_file_truncate(file, wanted);

    if (err != NULL && err_errnum(err) == EINVAL) {
        err_free(err);
        return err_new(ERR_STATE,
                       "'%s' has %llu bytes; where it is a device, that has to get %llu first",
                       file->path, (unsigned long long)now, (unsigned long long)wanted);
    }
    return err == NULL ? host_file_sync(file) : err;
}

struct err *raw_image_resize(struct block *block, uint64_t virtual_bytes)
{
    struct host_file *file = file_of(block);
    uint64_t file_bytes = 0;

    if (block->is_read_only)
        return err_new(ERR_STATE, "'%s' is open for reading only", file->path);
    if (virtual_bytes % SECTOR_BYTES != 0 || virtual_bytes > DISK_BYTES_MAX)
        return err_new(ERR_INVALID, "a disk has whole sectors of 512 bytes, and at most %llu bytes",
                       (unsigned long long)DISK_BYTES_MAX);
    TRY(host_file_size(file, &file_bytes));
    if (virtual_bytes != file_bytes)
        TRY(set_file_size(file, file_bytes, virtual_bytes));
    block->virtual_bytes = virtual_bytes;
    return NULL;
}
