/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_entry.c - see qcow_l2_entry.h.
 */
#include "storage/qcow/qcow_l2_entry.h"

#define COMPRESSED_SECTOR_BYTES 512u
#define HOST_OFFSET_BITS        56u

static bool decode_compressed(uint64_t entry, uint32_t cluster_bits,
                              struct qcow_cluster *out_cluster)
{
    unsigned offset_bits = 62 - (cluster_bits - 8);
    uint64_t offset = entry & (((uint64_t)1 << offset_bits) - 1);
    uint64_t more_sectors = (entry & (QCOW_ENTRY_COMPRESSED - 1)) >> offset_bits;

    if ((entry & QCOW_ENTRY_COPIED) != 0 || offset >> HOST_OFFSET_BITS != 0 || offset == 0)
        return false;

    *out_cluster = (struct qcow_cluster){
        .kind = QCOW_CLUSTER_COMPRESSED,
        .host_offset = offset,
        .compressed_bytes = (uint32_t)((more_sectors + 1) * COMPRESSED_SECTOR_BYTES -
                                       offset % COMPRESSED_SECTOR_BYTES),
    };
    return true;
}

bool qcow_l2_entry_decode(uint64_t entry, const struct qcow_entry_context *context,
                          struct qcow_cluster *out_cluster)
{
    if (entry & QCOW_ENTRY_COMPRESSED)
        return decode_compressed(entry, context->cluster_bits, out_cluster);

    uint64_t host_offset = entry & QCOW_ENTRY_OFFSET_MASK;
    bool is_zero = (entry & QCOW_ENTRY_ZERO) != 0;
    bool is_copied = (entry & QCOW_ENTRY_COPIED) != 0;
    uint64_t reserved = ~(QCOW_ENTRY_OFFSET_MASK | QCOW_ENTRY_ZERO | QCOW_ENTRY_COPIED);

    if ((entry & reserved) != 0 || (is_zero && context->version < 3) ||
        (host_offset & (((uint64_t)1 << context->cluster_bits) - 1)) != 0 ||
        (is_copied && host_offset == 0))
        return false;

    *out_cluster = (struct qcow_cluster){
        .kind = is_zero            ? QCOW_CLUSTER_ZERO
                : host_offset != 0 ? QCOW_CLUSTER_DATA
                                   : QCOW_CLUSTER_UNALLOCATED,
        .is_copied = is_copied,
        .host_offset = host_offset,
    };
    return true;
}

bool qcow_l2_entry_zeroed(const struct qcow_cluster *cluster,
                          const struct qcow_entry_context *context, enum qcow_zero_mode mode,
                          uint64_t *out_entry)
{
    bool has_zero_flag = context->version >= 3;

    if (cluster->kind == QCOW_CLUSTER_UNALLOCATED && !context->has_backing) {
        *out_entry = 0;
        return true;
    }
    if (!has_zero_flag) {
        /* Version 2 can only say "unallocated", which shows the backing file. */
        *out_entry = 0;
        return !context->has_backing && mode != QCOW_ZERO_KEEP;
    }
    if (mode == QCOW_ZERO_KEEP && cluster->is_copied) {
        *out_entry = qcow_l2_entry_of_data(cluster->host_offset) | QCOW_ENTRY_ZERO;
        return true;
    }
    *out_entry = QCOW_ENTRY_ZERO;
    return !(mode == QCOW_ZERO_DISCARD && cluster->kind == QCOW_CLUSTER_UNALLOCATED);
}
