/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file_fake.h - a host file in memory that can be told to fail, for tests.
 *
 * Thread: any.
 */
#ifndef STORAGE_TESTING_HOST_FILE_FAKE_H
#define STORAGE_TESTING_HOST_FILE_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/host_file.h"

/* Starts with a copy of the data. */
ERR_RESULT host_file_fake_create(const void *data, size_t len, struct host_file **out_file);

/* Keeps the bytes when the file is destroyed: each write goes to *out_data, which the caller
 * frees, with its length, at that moment. */
void host_file_fake_keep(struct host_file *file, void **out_data, size_t *out_len);

/* From now on reads and writes that are not aligned like this are refused. */
void host_file_fake_align(struct host_file *file, struct host_file_alignment alignment);

enum fake_fault {
    FAKE_FAULT_NONE,
    FAKE_FAULT_IO,          /* refused as a whole */
    FAKE_FAULT_SHORT_WRITE, /* the first half arrives, then no space is left */
};

/* Writes, syncs, punches, allocations and truncates count; the one with this ordinal (0 is the
 * next) and the `count - 1` after it fail. */
void host_file_fake_fail(struct host_file *file, enum fake_fault fault, uint64_t ordinal,
                         uint64_t count);

/* Reads count too, by themselves; those that touch a byte of [from, to) fail. */
void host_file_fake_fail_reads(struct host_file *file, uint64_t from, uint64_t to);
uint64_t host_file_fake_reads(struct host_file *file);

/* Operations counted so far, and barriers among them. */
uint64_t host_file_fake_operations(struct host_file *file);
uint64_t host_file_fake_syncs(struct host_file *file);

#endif
