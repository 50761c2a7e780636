/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_layout.c - see qcow_layout.h.
 */
#include "storage/qcow/qcow_layout.h"

#include "base/checked_math.h"
#include "base/limits.h"

#define HOST_CLUSTERS_MAX(bits) ((uint64_t)1 << (56 - (bits)))

/* Blocks that count the first `clusters` clusters of the file, themselves and their table among
 * them: `rest` is all that is neither table nor block. The table is made for `full_blocks`. */
static void count_blocks(struct qcow_layout *layout, uint64_t rest, uint64_t full_blocks,
                         uint64_t cluster_bytes)
{
    uint64_t wanted;

    layout->table =
        divide_up(MIN(full_blocks * 8, (uint64_t)QCOW_REFCOUNT_TABLE_BYTES_MAX), cluster_bytes);
    layout->blocks = 1;
    for (;;) {
        layout->table = MAX(layout->table, divide_up(layout->blocks * 8, cluster_bytes));
        wanted = divide_up(1 + layout->table + layout->blocks + rest, layout->block_counts);
        if (wanted <= layout->blocks)
            return;
        layout->blocks = wanted;
    }
}

bool qcow_layout_of(const struct qcow_geometry *geometry, enum qcow_reach reach,
                    struct qcow_layout *out_layout)
{
    uint64_t cluster_bytes = (uint64_t)1 << geometry->cluster_bits;
    uint64_t clusters = divide_up(geometry->virtual_bytes, cluster_bytes);
    struct qcow_layout layout = {
        .l2_entries = cluster_bytes / (geometry->has_extended_l2 ? 16 : 8),
        .block_counts = cluster_bytes * 8 >> geometry->refcount_order,
    };

    if (geometry->virtual_bytes > DISK_BYTES_MAX ||
        clusters >= HOST_CLUSTERS_MAX(geometry->cluster_bits))
        return false;
    layout.l2_tables = divide_up(clusters, layout.l2_entries);
    if (layout.l2_tables * 8 > QCOW_L1_BYTES_MAX)
        return false;

    layout.l1 = MAX(divide_up(layout.l2_tables * 8, cluster_bytes), (uint64_t)1);
    uint64_t full = clusters + layout.l2_tables + layout.l1;
    layout.l2 = reach == QCOW_REACH_L1 ? 0 : layout.l2_tables;
    layout.data = reach == QCOW_REACH_DATA ? clusters : 0;
    count_blocks(&layout, reach == QCOW_REACH_L1 ? layout.l1 : full,
                 divide_up(full, layout.block_counts) + 2, cluster_bytes);
    if (layout.blocks * 8 > QCOW_REFCOUNT_TABLE_BYTES_MAX)
        return false;
    *out_layout = layout;
    return true;
}
