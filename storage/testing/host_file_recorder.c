/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file_recorder.c - see host_file_recorder.h.
 * Tested by: host_file_test.c
 */
#include "storage/testing/host_file_recorder.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/lock.h"
#include "storage/testing/host_file_fake.h"

struct recorder {
    struct host_file base;
    struct host_file *next; /* owned */
    struct lock lock;
    struct record_log *log GUARDED_BY(&lock);
};

static struct recorder *self_of(struct host_file *file)
{
    return CONTAINER_OF(file, struct recorder, base);
}

/* Takes the record's data, also on failure. */
static struct err *append(struct recorder *self, struct record record)
{
    lock_acquire(&self->lock);
    struct record_log *log = self->log;
    struct record *records = realloc(log->records, (log->count + 1) * sizeof(*records));
    if (records != NULL) {
        log->records = records;
        records[log->count++] = record;
    }
    lock_release(&self->lock);
    if (records != NULL)
        return NULL;

    free(record.data);
    return err_new(ERR_NO_MEMORY, "log of a recorded file");
}

static struct err *recorder_read(struct host_file *file, const struct io_vector *to,
                                 uint64_t offset)
{
    return host_file_read(self_of(file)->next, to, offset);
}

static struct err *recorder_write(struct host_file *file, const struct io_vector *from,
                                  uint64_t offset)
{
    size_t len = (size_t)io_vector_bytes(from->iovs, from->count);
    uint8_t *data = malloc(len + 1);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "log of a recorded file");

    io_vector_gather(from->iovs, from->count, data);
    TRY(append(self_of(file), (struct record){RECORD_WRITE, offset, len, data}));
    return host_file_write(self_of(file)->next, from, offset);
}

/* A barrier covers what was recorded before it, so it is logged when it has succeeded. */
static struct err *recorder_sync(struct host_file *file)
{
    TRY(host_file_sync(self_of(file)->next));
    return append(self_of(file), (struct record){RECORD_SYNC, 0, 0, NULL});
}

static struct err *recorder_punch(struct host_file *file, uint64_t offset, uint64_t len)
{
    TRY(append(self_of(file), (struct record){RECORD_PUNCH, offset, len, NULL}));
    return host_file_punch(self_of(file)->next, offset, len);
}

/* No state after a power cut depends on it. */
static struct err *recorder_allocate(struct host_file *file, uint64_t offset, uint64_t len)
{
    return host_file_allocate(self_of(file)->next, offset, len);
}

static struct err *recorder_truncate(struct host_file *file, uint64_t bytes)
{
    TRY(append(self_of(file), (struct record){RECORD_TRUNCATE, bytes, 0, NULL}));
    return host_file_truncate(self_of(file)->next, bytes);
}

static struct err *recorder_size(struct host_file *file, uint64_t *out_bytes)
{
    return host_file_size(self_of(file)->next, out_bytes);
}

static void recorder_destroy(struct host_file *file)
{
    struct recorder *self = self_of(file);

    host_file_destroy(self->next);
    lock_finish(&self->lock);
    free(self);
}

struct err *host_file_recorder_over(void **inout_data, size_t *inout_len, struct record_log *log,
                                    struct host_file **out_file)
{
    struct host_file *file = NULL;
    void *before = *inout_data;

    TRY(host_file_fake_create(before, *inout_len, &file));
    host_file_fake_keep(file, inout_data, inout_len);
    free(before);
    struct err *err = host_file_recorder_create(file, log, out_file);
    if (err != NULL)
        host_file_destroy(file);
    return err;
}

void record_log_finish(struct record_log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free(log->records[i].data);
    free(log->records);
    *log = (struct record_log){NULL, 0};
}

static const struct host_file_ops recorder_ops = {
    .name = "recorder",
    .read = recorder_read,
    .write = recorder_write,
    .sync = recorder_sync,
    .punch = recorder_punch,
    .allocate = recorder_allocate,
    .truncate = recorder_truncate,
    .size = recorder_size,
    .destroy = recorder_destroy,
};

struct err *host_file_recorder_create(struct host_file *next, struct record_log *log,
                                      struct host_file **out_file) LOCK_UNCHECKED
{
    struct recorder *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "recorded file");

    self->base.ops = &recorder_ops;
    self->base.path = next->path;
    self->next = next;
    self->log = log;
    lock_init(&self->lock, LOCK_TEST);
    *out_file = &self->base;
    return NULL;
}
