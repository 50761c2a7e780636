/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file_fake.c - see host_file_fake.h.
 * Tested by: host_file_test.c
 */
#include "storage/testing/host_file_fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/lock.h"

struct fake_file {
    struct host_file base;
    struct lock lock;
    uint8_t *bytes GUARDED_BY(&lock); /* owned */
    size_t len GUARDED_BY(&lock);
    size_t capacity GUARDED_BY(&lock);
    void **keep_data GUARDED_BY(&lock);
    size_t *keep_len GUARDED_BY(&lock);
    enum fake_fault fault GUARDED_BY(&lock);
    uint64_t fail_first GUARDED_BY(&lock), fail_end GUARDED_BY(&lock);
    uint64_t operations GUARDED_BY(&lock);
    uint64_t syncs GUARDED_BY(&lock);
    uint64_t reads GUARDED_BY(&lock);
    uint64_t unreadable_from GUARDED_BY(&lock), unreadable_to GUARDED_BY(&lock);
    struct host_file_alignment alignment GUARDED_BY(&lock);
};

static struct fake_file *self_of(struct host_file *file)
{
    return CONTAINER_OF(file, struct fake_file, base);
}

/* Counts an operation; FAKE_FAULT_NONE when it may go on. */
static enum fake_fault count_locked(struct fake_file *self) REQUIRES(&self->lock)
{
    uint64_t ordinal = self->operations++;

    return ordinal >= self->fail_first && ordinal < self->fail_end ? self->fault : FAKE_FAULT_NONE;
}

static struct err *check_alignment(struct fake_file *self, const struct io_vector *vector,
                                   uint64_t offset)
{
    lock_acquire(&self->lock);
    struct host_file_alignment alignment = self->alignment;
    lock_release(&self->lock);
    if (host_file_is_aligned(alignment, vector->iovs, vector->count, offset))
        return NULL;
    return err_new(ERR_INVALID, "the fake file wants whole blocks of %u bytes", alignment.offset);
}

static struct err *resize_locked(struct fake_file *self, size_t len) REQUIRES(&self->lock)
{
    if (len > self->capacity) {
        size_t capacity = MAX(len, self->capacity * 2);
        uint8_t *bytes = realloc(self->bytes, capacity);
        if (bytes == NULL)
            return err_new(ERR_NO_MEMORY, "fake file of %zu bytes", len);
        memset(bytes + self->capacity, 0, capacity - self->capacity);
        self->bytes = bytes;
        self->capacity = capacity;
    }
    if (len < self->len)
        memset(self->bytes + len, 0, self->len - len);
    self->len = len;
    return NULL;
}

static struct err *count_read(struct fake_file *self, const struct io_vector *to, uint64_t offset)
{
    uint64_t end = offset + io_vector_bytes(to->iovs, to->count);

    lock_acquire(&self->lock);
    self->reads++;
    bool is_unreadable = offset < self->unreadable_to && end > self->unreadable_from;
    lock_release(&self->lock);
    if (!is_unreadable)
        return NULL;
    return err_errno(EIO, "read '%s' at %llu", self->base.path, (unsigned long long)offset);
}

static struct err *fake_read(struct host_file *file, const struct io_vector *to, uint64_t offset)
{
    struct fake_file *self = self_of(file);

    TRY(check_alignment(self, to, offset));
    TRY(count_read(self, to, offset));
    lock_acquire(&self->lock);
    for (int i = 0; i < to->count; i++) {
        size_t want = to->iovs[i].iov_len;
        size_t have = offset < self->len ? MIN(want, self->len - (size_t)offset) : 0;
        if (have > 0)
            memcpy(to->iovs[i].iov_base, self->bytes + offset, have);
        memset((uint8_t *)to->iovs[i].iov_base + have, 0, want - have);
        offset += want;
    }
    lock_release(&self->lock);
    return NULL;
}

static struct err *write_locked(struct fake_file *self, const struct io_vector *from,
                                uint64_t offset, size_t len) REQUIRES(&self->lock)
{
    if (len == 0)
        return NULL;
    if (offset + len > self->len)
        TRY(resize_locked(self, (size_t)offset + len));
    for (int i = 0; i < from->count && len > 0; i++) {
        size_t part = MIN(from->iovs[i].iov_len, len);
        memcpy(self->bytes + offset, from->iovs[i].iov_base, part);
        offset += part;
        len -= part;
    }
    return NULL;
}

static struct err *fake_write(struct host_file *file, const struct io_vector *from, uint64_t offset)
{
    struct fake_file *self = self_of(file);
    size_t len = (size_t)io_vector_bytes(from->iovs, from->count);
    struct err *err;

    TRY(check_alignment(self, from, offset));
    lock_acquire(&self->lock);
    enum fake_fault fault = count_locked(self);
    if (fault == FAKE_FAULT_IO) {
        err = err_new(ERR_IO, "the fake file was told to fail");
    } else if (fault == FAKE_FAULT_SHORT_WRITE) {
        err = write_locked(self, from, offset, len / 2);
        if (err == NULL)
            err = err_errno(ENOSPC, "write to the fake file");
    } else {
        err = write_locked(self, from, offset, len);
    }
    lock_release(&self->lock);
    return err;
}

static struct err *fake_sync(struct host_file *file)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    bool fails = count_locked(self) != FAKE_FAULT_NONE;
    self->syncs++;
    lock_release(&self->lock);
    return fails ? err_new(ERR_IO, "the fake file was told to fail") : NULL;
}

static struct err *fake_punch(struct host_file *file, uint64_t offset, uint64_t len)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    bool fails = count_locked(self) != FAKE_FAULT_NONE;
    if (!fails && offset < self->len)
        memset(self->bytes + offset, 0, (size_t)MIN(len, self->len - offset));
    lock_release(&self->lock);
    return fails ? err_new(ERR_IO, "the fake file was told to fail") : NULL;
}

static struct err *fake_allocate(struct host_file *file, uint64_t offset, uint64_t len)
{
    struct fake_file *self = self_of(file);

    (void)offset;
    (void)len;
    lock_acquire(&self->lock);
    bool fails = count_locked(self) != FAKE_FAULT_NONE;
    lock_release(&self->lock);
    return fails ? err_new(ERR_IO, "the fake file was told to fail") : NULL;
}

static struct err *fake_truncate(struct host_file *file, uint64_t bytes)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    struct err *err = count_locked(self) != FAKE_FAULT_NONE
                          ? err_new(ERR_IO, "the fake file was told to fail")
                          : resize_locked(self, (size_t)bytes);
    lock_release(&self->lock);
    return err;
}

static struct err *fake_size(struct host_file *file, uint64_t *out_bytes)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    *out_bytes = self->len;
    lock_release(&self->lock);
    return NULL;
}

static void fake_destroy(struct host_file *file) LOCK_UNCHECKED
{
    struct fake_file *self = self_of(file);

    if (self->keep_data != NULL) {
        *self->keep_data = TAKE_PTR(self->bytes);
        *self->keep_len = self->len;
    }
    lock_finish(&self->lock);
    free(self->bytes);
    free(self);
}

static const struct host_file_ops fake_file_ops = {
    .name = "fake",
    .read = fake_read,
    .write = fake_write,
    .sync = fake_sync,
    .punch = fake_punch,
    .allocate = fake_allocate,
    .truncate = fake_truncate,
    .size = fake_size,
    .destroy = fake_destroy,
};

struct err *host_file_fake_create(const void *data, size_t len,
                                  struct host_file **out_file) LOCK_UNCHECKED
{
    struct fake_file *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "fake file");

    self->base.ops = &fake_file_ops;
    self->base.path = "fake";
    self->alignment = (struct host_file_alignment){.memory = 1, .offset = 1};
    lock_init(&self->lock, LOCK_TEST);
    if (len > 0) {
        self->bytes = malloc(len);
        if (self->bytes == NULL) {
            fake_destroy(&self->base);
            return err_new(ERR_NO_MEMORY, "fake file of %zu bytes", len);
        }
        memcpy(self->bytes, data, len);
        self->len = self->capacity = len;
    }
    *out_file = &self->base;
    return NULL;
}

void host_file_fake_align(struct host_file *file, struct host_file_alignment alignment)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    self->alignment = alignment;
    lock_release(&self->lock);
}

void host_file_fake_keep(struct host_file *file, void **out_data, size_t *out_len)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    self->keep_data = out_data;
    self->keep_len = out_len;
    lock_release(&self->lock);
}

void host_file_fake_fail(struct host_file *file, enum fake_fault fault, uint64_t ordinal,
                         uint64_t count)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    self->fault = fault;
    self->fail_first = self->operations + ordinal;
    self->fail_end = self->fail_first + count;
    lock_release(&self->lock);
}

uint64_t host_file_fake_operations(struct host_file *file)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    uint64_t operations = self->operations;
    lock_release(&self->lock);
    return operations;
}

uint64_t host_file_fake_syncs(struct host_file *file)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    uint64_t syncs = self->syncs;
    lock_release(&self->lock);
    return syncs;
}

void host_file_fake_fail_reads(struct host_file *file, uint64_t from, uint64_t to)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    self->unreadable_from = from;
    self->unreadable_to = to;
    lock_release(&self->lock);
}

uint64_t host_file_fake_reads(struct host_file *file)
{
    struct fake_file *self = self_of(file);

    lock_acquire(&self->lock);
    uint64_t reads = self->reads;
    lock_release(&self->lock);
    return reads;
}
