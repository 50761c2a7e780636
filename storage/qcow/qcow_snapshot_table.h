/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_snapshot_table.h - the list of snapshots inside an image.
 *
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_SNAPSHOT_TABLE_H
#define STORAGE_QCOW_QCOW_SNAPSHOT_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;
struct qcow_header;
struct writer;

#define QCOW_SNAPSHOTS_MAX            65536u
#define QCOW_SNAPSHOT_TABLE_BYTES_MAX (64u << 20)
#define QCOW_SNAPSHOT_EXTRA_MAX       1024u
#define QCOW_SNAPSHOT_ICOUNT_OFF      UINT64_MAX

struct qcow_snapshot {
    char *id;   /* owned; a decimal number by custom */
    char *name; /* owned */
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint32_t date_s, date_ns;
    uint64_t vm_clock_ns;
    uint64_t vm_state_bytes; /* 0: disk only */
    uint64_t disk_bytes;
    uint64_t icount;
    void *more_extra; /* owned; extra data behind what is known, kept as it is */
    uint32_t more_extra_bytes;
};

struct qcow_snapshot_table {
    struct qcow_snapshot *list; /* owned */
    uint32_t count;
    uint64_t table_bytes; /* that it takes in the file */
};

/* Bounds everything; the L1 tables are only checked to be aligned and of possible size. */
ERR_RESULT qcow_snapshot_table_load(struct host_file *file, const struct qcow_header *header,
                                    struct qcow_snapshot_table *out_table);
void qcow_snapshot_table_finish(struct qcow_snapshot_table *table); /* accepts a zeroed one */

/* As it stands in the file; free() *out_data. */
ERR_RESULT qcow_snapshot_table_build(const struct qcow_snapshot_table *table, uint8_t **out_data,
                                     size_t *out_len);

#endif
