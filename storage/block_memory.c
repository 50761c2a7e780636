/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_memory.c - see block_memory.h.
 */
#include "storage/block_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/lock.h"
#include "storage/io_vector.h"

struct block_memory {
    struct block base;
    struct lock lock;
    uint8_t *bytes GUARDED_BY(&lock); /* owned */
    unsigned flush_count GUARDED_BY(&lock);
    bool is_failing GUARDED_BY(&lock);
};

static struct block_memory *self_of(struct block *block)
{
    return CONTAINER_OF(block, struct block_memory, base);
}

static struct err *check_locked(struct block_memory *self) REQUIRES(&self->lock)
{
    return self->is_failing ? err_new(ERR_IO, "the memory disk was told to fail") : NULL;
}

static struct err *memory_read(struct block *block, const struct iovec *iovs, int iov_count,
                               uint64_t offset)
{
    struct block_memory *self = self_of(block);
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_READ, iovs, iov_count, offset, &len));
    lock_acquire(&self->lock);
    struct err *err = check_locked(self);
    if (err == NULL)
        io_vector_scatter(iovs, iov_count, self->bytes + offset);
    lock_release(&self->lock);
    return err;
}

static struct err *memory_write(struct block *block, const struct iovec *iovs, int iov_count,
                                uint64_t offset)
{
    struct block_memory *self = self_of(block);
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_CHANGE, iovs, iov_count, offset, &len));
    lock_acquire(&self->lock);
    struct err *err = check_locked(self);
    if (err == NULL)
        io_vector_gather(iovs, iov_count, self->bytes + offset);
    lock_release(&self->lock);
    return err;
}

static struct err *memory_flush(struct block *block)
{
    struct block_memory *self = self_of(block);

    lock_acquire(&self->lock);
    struct err *err = check_locked(self);
    if (err == NULL)
        self->flush_count++;
    lock_release(&self->lock);
    return err;
}

static struct err *memory_write_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                       bool may_unmap)
{
    struct block_memory *self = self_of(block);

    (void)may_unmap;
    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    lock_acquire(&self->lock);
    struct err *err = check_locked(self);
    if (err == NULL)
        memset(self->bytes + offset, 0, len);
    lock_release(&self->lock);
    return err;
}

static struct err *memory_discard(struct block *block, uint64_t offset, uint64_t len)
{
    return memory_write_zeroes(block, offset, len, true);
}

static struct err *memory_close(struct block *block) LOCK_UNCHECKED
{
    struct block_memory *self = self_of(block);

    lock_finish(&self->lock);
    free(self->bytes);
    free(self);
    return NULL;
}

/* Tests look while nothing runs. */
uint8_t *block_memory_bytes(struct block *block) LOCK_UNCHECKED
{
    return self_of(block)->bytes;
}

unsigned block_memory_flush_count(struct block *block)
{
    struct block_memory *self = self_of(block);

    lock_acquire(&self->lock);
    unsigned count = self->flush_count;
    lock_release(&self->lock);
    return count;
}

void block_memory_set_failing(struct block *block, bool is_failing)
{
    struct block_memory *self = self_of(block);

    lock_acquire(&self->lock);
    self->is_failing = is_failing;
    lock_release(&self->lock);
}

static const struct block_ops block_memory_ops = {
    .format = "memory",
    .read = memory_read,
    .write = memory_write,
    .flush = memory_flush,
    .write_zeroes = memory_write_zeroes,
    .discard = memory_discard,
    .close = memory_close,
};

struct err *block_memory_create(uint64_t virtual_bytes, struct block **out_block) LOCK_UNCHECKED
{
    CLEANUP(cleanup_free) struct block_memory *self = calloc(1, sizeof(*self));
    CLEANUP(cleanup_free) uint8_t *bytes = calloc(1, virtual_bytes);
    if (self == NULL || bytes == NULL)
        return err_new(ERR_NO_MEMORY, "memory disk of %llu bytes",
                       (unsigned long long)virtual_bytes);

    self->base.ops = &block_memory_ops;
    self->base.virtual_bytes = virtual_bytes;
    self->bytes = TAKE_PTR(bytes);
    lock_init(&self->lock, LOCK_TEST);
    *out_block = &TAKE_PTR(self)->base;
    return NULL;
}
