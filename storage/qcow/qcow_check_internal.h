/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_check_internal.h - a check at work, as its parts and repairing see it.
 */
#ifndef STORAGE_QCOW_QCOW_CHECK_INTERNAL_H
#define STORAGE_QCOW_QCOW_CHECK_INTERNAL_H

#include "storage/host_file.h"
#include "storage/qcow/qcow_check.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_l2_entry.h"
#include "storage/qcow/qcow_reference_map.h"

/* Refcount blocks in memory: the walk asks for counts, mostly of neighbours. */
#define QCOW_CHECK_BLOCKS 16u

struct qcow_check_block {
    uint64_t index;  /* in the refcount table */
    uint64_t used;   /* when it was last asked for; 0: empty */
    uint8_t *counts; /* owned */
};

struct qcow_check {
    struct host_file *file;
    struct qcow_check_listener *listener;
    struct qcow_header header;
    struct qcow_entry_context context;
    uint64_t cluster_bytes;
    uint64_t file_bytes;
    uint64_t end_cluster; /* behind the last of the file, which may be cut short */
    struct qcow_reference_map references;
    struct qcow_reference_map tables; /* L2 tables: how many L1 entries lead to each */
    struct qcow_reference_map active; /* those of them that the active L1 table leads to */
    uint64_t *refcount_table;         /* owned; 0 where an entry can not be used */
    uint64_t refcount_entries;
    struct qcow_check_block blocks[QCOW_CHECK_BLOCKS];
    uint64_t block_uses;
    /* To a repair: what some entries refer to is not known, so no count is to become lower. */
    bool keeps_counts;
    struct qcow_check_report report;
};

ERR_RESULT qcow_check_init(struct qcow_check *check, struct host_file *file,
                           struct qcow_check_listener *listener);
void qcow_check_finish(struct qcow_check *check);
ERR_RESULT qcow_check_run(struct qcow_check *check);

void qcow_check_error(struct qcow_check *check, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void qcow_check_leak(struct qcow_check *check, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Counts references to the clusters of a range, `times` each; out of the file or across another
 * kind of owner it is an error of the image, and nothing is counted outside. False: it can not be
 * used. */
ERR_RESULT qcow_check_refer(struct qcow_check *check, uint64_t offset, uint64_t len, uint32_t times,
                            enum qcow_owner owner, bool *out_is_usable);

/* The parts of a check, in their order. */
ERR_RESULT qcow_check_refcount_table(struct qcow_check *check);
ERR_RESULT qcow_check_snapshots(struct qcow_check *check);
ERR_RESULT qcow_check_bitmaps(struct qcow_check *check);
ERR_RESULT qcow_check_l1(struct qcow_check *check, uint64_t offset, uint32_t entries,
                         bool is_active);
ERR_RESULT qcow_check_l2_tables(struct qcow_check *check);
ERR_RESULT qcow_check_counts(struct qcow_check *check);

/* What the image says of a cluster's count. */
ERR_RESULT qcow_check_stored(struct qcow_check *check, uint64_t cluster, uint64_t *out_count);

#endif
