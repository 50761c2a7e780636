/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_refcounts.h - how often each cluster of the file is referenced.
 *
 * A table of blocks, each a cluster of counts; blocks are loaded when asked for, and those that
 * have not changed take at most QCOW_REFCOUNTS_BYTES_MAX of memory, or four blocks. Counts change
 * in memory; a flush writes the changed parts of blocks. New blocks and a larger table are durable
 * at once, because nothing may point to a cluster whose count a power cut could lose. Thread: any,
 * under the image's lock.
 */
#ifndef STORAGE_QCOW_QCOW_REFCOUNTS_H
#define STORAGE_QCOW_QCOW_REFCOUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;
struct qcow_header;
struct qcow_refblock;
struct qcow_write_list;

#define QCOW_REFCOUNTS_BYTES_MAX (4u << 20)

struct qcow_refcounts {
    struct host_file *file;
    unsigned cluster_bits;
    unsigned order;          /* a count has 1 << order bits */
    unsigned per_block_bits; /* a block has 1 << per_block_bits counts */
    uint64_t table_offset;
    uint64_t table_entries;
    uint64_t *table;               /* owned; offsets of blocks, 0: all counts are 0 */
    struct qcow_refblock **blocks; /* owned; NULL: not loaded */
    size_t block_count;            /* of those that are loaded */
    uint64_t hand;                 /* the clock's: where to look for one to drop */
    struct qcow_refblock *changed; /* blocks that wait for a flush, or are in one */
    size_t changed_count;
};

ERR_RESULT qcow_refcounts_load(struct qcow_refcounts *refcounts, struct host_file *file,
                               const struct qcow_header *header);
void qcow_refcounts_finish(struct qcow_refcounts *refcounts); /* accepts a zeroed one */

/* Is there a block for this cluster's count? */
bool qcow_refcounts_covers(const struct qcow_refcounts *refcounts, uint64_t cluster);

/* Makes a block for a cluster that has none, in `cluster` itself and, when the table must grow,
 * what follows. Gives how many clusters from there on are used up. */
ERR_RESULT qcow_refcounts_cover(struct qcow_refcounts *refcounts, uint64_t cluster,
                                uint64_t *out_used);

/* Can it be told without reading a block? */
bool qcow_refcounts_is_loaded(const struct qcow_refcounts *refcounts, uint64_t cluster);

ERR_RESULT qcow_refcounts_get(struct qcow_refcounts *refcounts, uint64_t cluster,
                              uint64_t *out_count);
/* Of a cluster that is covered. */
ERR_RESULT qcow_refcounts_set(struct qcow_refcounts *refcounts, uint64_t cluster, uint64_t count);

/* Changed blocks stay until a flush: is it time for one? */
bool qcow_refcounts_wants_flush(const struct qcow_refcounts *refcounts);

/* Copies what has changed into the list; settle says whether the list became durable. */
ERR_RESULT qcow_refcounts_capture(struct qcow_refcounts *refcounts, struct qcow_write_list *list);
void qcow_refcounts_settle(struct qcow_refcounts *refcounts, bool is_durable);

#endif
