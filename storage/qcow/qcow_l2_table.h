/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_table.h - whole L2 tables: where they are, new ones, and copies of shared ones.
 */
#ifndef STORAGE_QCOW_QCOW_L2_TABLE_H
#define STORAGE_QCOW_QCOW_L2_TABLE_H

#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_image_internal.h"

struct qcow_l2_table {
    uint64_t l1_index;
    uint64_t host_offset; /* 0: there is none */
    bool is_copied;       /* what the L1 entry says: it is the image's alone */
};

/* The guest bytes of one table, as a power of two. */
static inline unsigned qcow_l2_table_reach_bits(const struct qcow_image *image)
{
    return image->context.cluster_bits + qcow_entry_table_bits(&image->context);
}

/* The table for this guest offset; ERR_INVALID when it can not be where the L1 entry says. */
ERR_RESULT qcow_l2_table_find_locked(struct qcow_image *image, uint64_t offset,
                                     struct qcow_l2_table *out_table) REQUIRES(&image->lock);

/* Gives this guest offset a table that may be changed: an empty one if there is none, a copy if it
 * is shared. Entries say the same afterwards, but where they lie in memory changes. */
ERR_RESULT qcow_l2_table_own_locked(struct qcow_image *image, uint64_t offset)
    REQUIRES(&image->lock);

/* Is it shared with an internal snapshot: not to be changed, nor what it points to? */
bool qcow_l2_table_is_shared_locked(struct qcow_image *image, const struct qcow_l2_table *table,
                                    enum qcow_counts counts) REQUIRES(&image->lock);

/* Do flags that say "referenced once" need a look at the counts? A cut in a snapshot operation may
 * have left wrong ones: version 3 is marked dirty then, by us at least, version 2 can not be. */
static inline bool qcow_l2_table_asks_counts(const struct qcow_image *image)
{
    return !image->base.is_read_only &&
           (image->header.snapshot_count > 0 || image->header.version < 3);
}

/* Is the cluster referenced exactly once? The flag in the entry is what the format relies on; a
 * cut in another program's snapshot operation may have left it set where it should not be. */
bool qcow_l2_table_is_alone_locked(struct qcow_image *image, uint64_t host_offset,
                                   enum qcow_counts counts) REQUIRES(&image->lock);

#endif
