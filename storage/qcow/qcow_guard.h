/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_guard.h - where an image's own tables lie, so that nothing else is ever written there.
 *
 * Sorted ranges of host clusters, so a question costs the logarithm of their number. Every cluster
 * that is handed out and every write of metadata is checked. Thread: any, under the image's lock.
 */
#ifndef STORAGE_QCOW_QCOW_GUARD_H
#define STORAGE_QCOW_QCOW_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;
struct qcow_header;
struct qcow_l1;
struct qcow_refcounts;

enum qcow_table_kind {
    QCOW_TABLE_NONE,
    QCOW_TABLE_HEADER,
    QCOW_TABLE_L1,
    QCOW_TABLE_L2,
    QCOW_TABLE_REFCOUNTS, /* the table and its blocks */
    QCOW_TABLE_SNAPSHOTS, /* the list and the saved L1 tables */
    QCOW_TABLE_BITMAPS,   /* the directory */
};

struct qcow_guarded {
    uint64_t first; /* clusters */
    uint64_t count;
    enum qcow_table_kind kind;
};

struct qcow_guard {
    unsigned cluster_bits;
    struct qcow_guarded *ranges; /* owned; sorted, without overlap */
    size_t count;
    size_t capacity;
};

/* With what the header names; a writable image's needs the rest too. ERR_INVALID: they overlap. */
ERR_RESULT qcow_guard_init(struct qcow_guard *guard, const struct qcow_header *header);
ERR_RESULT qcow_guard_load(struct qcow_guard *guard, struct host_file *file,
                           const struct qcow_header *header, const struct qcow_l1 *l1,
                           const struct qcow_refcounts *refcounts);
void qcow_guard_finish(struct qcow_guard *guard); /* accepts a zeroed one */

/* What a cluster is used for. */
enum qcow_table_kind qcow_guard_kind(const struct qcow_guard *guard, uint64_t cluster);
/* Do all of these host bytes belong to tables of this kind? */
bool qcow_guard_covers(const struct qcow_guard *guard, enum qcow_table_kind kind, uint64_t offset,
                       uint64_t len);

/* Where the last table ends, in clusters. */
uint64_t qcow_guard_end(const struct qcow_guard *guard);

/* ERR_INVALID: some of the clusters are a table already. */
ERR_RESULT qcow_guard_add(struct qcow_guard *guard, enum qcow_table_kind kind, uint64_t first,
                          uint64_t count);
/* What of the clusters are tables are not any more; without memory they stay guarded. */
void qcow_guard_remove(struct qcow_guard *guard, uint64_t first, uint64_t count);

#endif
