/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file_recorder.h - passes everything on to another host file and keeps a log of what changed
 * it, from which a test builds the states that a power cut could leave.
 *
 * Thread: any; the log is read while no request is running.
 */
#ifndef STORAGE_TESTING_HOST_FILE_RECORDER_H
#define STORAGE_TESTING_HOST_FILE_RECORDER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/host_file.h"

enum record_kind { RECORD_WRITE, RECORD_PUNCH, RECORD_TRUNCATE, RECORD_SYNC };

struct record {
    enum record_kind kind;
    uint64_t offset;
    uint64_t len;
    uint8_t *data; /* owned; of writes only */
};

struct record_log {
    struct record *records; /* owned */
    size_t count;
};

/* Owns `next`. Records into *log, which the caller zeroes first and finishes after the file. */
ERR_RESULT host_file_recorder_create(struct host_file *next, struct record_log *log,
                                     struct host_file **out_file);

/* The same over an image in memory, which the caller owns: *inout_data is what has become of it
 * once the file is destroyed. */
ERR_RESULT host_file_recorder_over(void **inout_data, size_t *inout_len, struct record_log *log,
                                   struct host_file **out_file);
void record_log_finish(struct record_log *log);

#endif
