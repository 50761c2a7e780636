/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_layout.h - where the parts of a new image lie. Pure numbers.
 *
 *   | header | refcount table | refcount blocks | L1 table | L2 tables | data clusters |
 *
 * A plain new image ends with its L1 table; a static one holds all L2 tables too, a preallocated
 * one the data clusters as well. Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_LAYOUT_H
#define STORAGE_QCOW_QCOW_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#define QCOW_L1_BYTES_MAX             (32u << 20)
#define QCOW_REFCOUNT_TABLE_BYTES_MAX (8u << 20)

struct qcow_geometry {
    uint64_t virtual_bytes;
    unsigned cluster_bits;
    unsigned refcount_order; /* a count has 1 << order bits */
    bool has_extended_l2;
};

/* What is in place from the start. */
enum qcow_reach {
    QCOW_REACH_L1,   /* no L2 table */
    QCOW_REACH_L2,   /* every L2 table, and counts for the image when it is full */
    QCOW_REACH_DATA, /* every data cluster */
};

/* In clusters, but for the first three. */
struct qcow_layout {
    uint64_t l2_entries;   /* in one L2 table */
    uint64_t l2_tables;    /* that cover the disk: entries of the L1 table */
    uint64_t block_counts; /* in one refcount block */
    uint64_t table;
    uint64_t blocks;
    uint64_t l1;
    uint64_t l2;
    uint64_t data;
};

/* False: the format has no room for such a disk (its L1 table or refcount table would be too
 * large). */
bool qcow_layout_of(const struct qcow_geometry *geometry, enum qcow_reach reach,
                    struct qcow_layout *out_layout);

/* First clusters of the parts, and the end. */
static inline uint64_t qcow_layout_blocks(const struct qcow_layout *layout)
{
    return 1 + layout->table;
}

static inline uint64_t qcow_layout_l1(const struct qcow_layout *layout)
{
    return qcow_layout_blocks(layout) + layout->blocks;
}

static inline uint64_t qcow_layout_l2(const struct qcow_layout *layout)
{
    return qcow_layout_l1(layout) + layout->l1;
}

static inline uint64_t qcow_layout_data(const struct qcow_layout *layout)
{
    return qcow_layout_l2(layout) + layout->l2;
}

static inline uint64_t qcow_layout_end(const struct qcow_layout *layout)
{
    return qcow_layout_data(layout) + layout->data;
}

#endif
