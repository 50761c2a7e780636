/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_entry.c - see qcow_l2_entry.h.
 */
#include "storage/qcow/qcow_l2_entry.h"

#include "base/assert.h"
#include "base/checked_math.h"
#include "storage/qcow/qcow_header.h"

#define COMPRESSED_SECTOR_BYTES 512u
#define HOST_OFFSET_BITS        56u
#define ZERO_SHIFT              32u /* of the second half of an extended entry's bitmap */

struct qcow_entry_context qcow_entry_context_of(const struct qcow_header *header)
{
    return (struct qcow_entry_context){
        .version = header->version,
        .cluster_bits = header->cluster_bits,
        .subcluster_bits = qcow_header_subcluster_bits(header),
        .has_backing = header->backing_name[0] != '\0',
    };
}

static bool decode_compressed(struct qcow_entry entry, uint32_t cluster_bits,
                              struct qcow_cluster *out_cluster)
{
    unsigned offset_bits = 62 - (cluster_bits - 8);
    uint64_t offset = entry.descriptor & (((uint64_t)1 << offset_bits) - 1);
    uint64_t more_sectors = (entry.descriptor & (QCOW_ENTRY_COMPRESSED - 1)) >> offset_bits;

    /* qcow2, "Extended L2 Entries": "The Subcluster Allocation bitmap ... is ... reserved (set to
     * 0)" for compressed clusters. */
    if ((entry.descriptor & QCOW_ENTRY_COPIED) != 0 || entry.bitmap != 0 ||
        offset >> HOST_OFFSET_BITS != 0 || offset == 0)
        return false;

    *out_cluster = (struct qcow_cluster){
        .is_compressed = true,
        .host_offset = offset,
        .compressed_bytes = (uint32_t)((more_sectors + 1) * COMPRESSED_SECTOR_BYTES -
                                       offset % COMPRESSED_SECTOR_BYTES),
    };
    return true;
}

/* The one subcluster of a standard entry. */
static bool decode_flag(uint64_t descriptor, uint32_t version, struct qcow_cluster *cluster)
{
    bool is_zero = (descriptor & QCOW_ENTRY_ZERO) != 0;

    cluster->zero = is_zero ? 1 : 0;
    cluster->data = !is_zero && cluster->host_offset != 0 ? 1 : 0;
    return !is_zero || version >= 3;
}

/* The 32 subclusters of an extended one. */
static bool decode_bitmap(struct qcow_entry entry, struct qcow_cluster *cluster)
{
    cluster->data = (uint32_t)entry.bitmap;
    cluster->zero = (uint32_t)(entry.bitmap >> ZERO_SHIFT);
    return (entry.descriptor & QCOW_ENTRY_ZERO) == 0 && (cluster->data & cluster->zero) == 0 &&
           (cluster->data == 0 || cluster->host_offset != 0);
}

bool qcow_l2_entry_decode(struct qcow_entry entry, const struct qcow_entry_context *context,
                          struct qcow_cluster *out_cluster)
{
    if (entry.descriptor & QCOW_ENTRY_COMPRESSED)
        return decode_compressed(entry, context->cluster_bits, out_cluster);

    uint64_t reserved = ~(QCOW_OFFSET_MASK | QCOW_ENTRY_ZERO | QCOW_ENTRY_COPIED);
    struct qcow_cluster cluster = {
        .host_offset = entry.descriptor & QCOW_OFFSET_MASK,
        .is_copied = (entry.descriptor & QCOW_ENTRY_COPIED) != 0,
    };
    bool is_valid = qcow_entry_is_extended(context)
                        ? decode_bitmap(entry, &cluster)
                        : decode_flag(entry.descriptor, context->version, &cluster);

    if (!is_valid || (entry.descriptor & reserved) != 0 ||
        (cluster.host_offset & (((uint64_t)1 << context->cluster_bits) - 1)) != 0 ||
        (cluster.is_copied && cluster.host_offset == 0))
        return false;
    *out_cluster = cluster;
    return true;
}

static struct qcow_entry encode_compressed(const struct qcow_cluster *cluster,
                                           uint32_t cluster_bits)
{
    unsigned offset_bits = 62 - (cluster_bits - 8);
    uint64_t end = cluster->host_offset + cluster->compressed_bytes;
    uint64_t more_sectors =
        (end - 1) / COMPRESSED_SECTOR_BYTES - cluster->host_offset / COMPRESSED_SECTOR_BYTES;

    ASSERT(cluster->host_offset >> MIN(offset_bits, HOST_OFFSET_BITS) == 0);
    ASSERT(more_sectors >> (62 - offset_bits) == 0);
    return (struct qcow_entry){
        QCOW_ENTRY_COMPRESSED | more_sectors << offset_bits | cluster->host_offset, 0};
}

struct qcow_entry qcow_l2_entry_encode(const struct qcow_cluster *cluster,
                                       const struct qcow_entry_context *context)
{
    uint64_t descriptor = cluster->host_offset | (cluster->is_copied ? QCOW_ENTRY_COPIED : 0);

    if (cluster->is_compressed)
        return encode_compressed(cluster, context->cluster_bits);
    ASSERT((cluster->data & cluster->zero) == 0);
    ASSERT(cluster->host_offset != 0 || (cluster->data == 0 && !cluster->is_copied));
    if (qcow_entry_is_extended(context))
        return (struct qcow_entry){descriptor,
                                   (uint64_t)cluster->zero << ZERO_SHIFT | cluster->data};

    /* A standard entry has no way to say that a place holds nothing yet. */
    ASSERT(cluster->host_offset == 0 || (cluster->data | cluster->zero) != 0);
    return (struct qcow_entry){descriptor | (cluster->zero != 0 ? QCOW_ENTRY_ZERO : 0), 0};
}

enum qcow_kind qcow_cluster_kind(const struct qcow_cluster *cluster,
                                 const struct qcow_entry_context *context, unsigned first,
                                 unsigned *out_count)
{
    uint32_t bit = qcow_subcluster_mask(first, 1);
    uint64_t others; /* subclusters that end the run */
    enum qcow_kind kind;

    if (cluster->is_compressed) {
        kind = QCOW_KIND_COMPRESSED;
        others = 0;
    } else if (cluster->data & bit) {
        kind = QCOW_KIND_DATA;
        others = ~cluster->data;
    } else if (cluster->zero & bit) {
        kind = QCOW_KIND_ZERO;
        others = ~cluster->zero;
    } else {
        kind = QCOW_KIND_UNALLOCATED;
        others = cluster->data | cluster->zero;
    }
    others = others >> first | (uint64_t)1 << (qcow_subcluster_count(context) - first);
    *out_count = (unsigned)__builtin_ctzll(others);
    return kind;
}

void qcow_cluster_set_data(struct qcow_cluster *cluster, uint32_t mask)
{
    ASSERT(!cluster->is_compressed && cluster->host_offset != 0);
    cluster->data |= mask;
    cluster->zero &= ~mask;
}

bool qcow_cluster_zero(struct qcow_cluster *cluster, const struct qcow_entry_context *context,
                       uint32_t mask, enum qcow_zero_mode mode)
{
    uint32_t all = qcow_subcluster_all(context);
    uint32_t held = cluster->is_compressed ? all : cluster->data | cluster->zero;
    bool is_unallocated_fine = !context->has_backing || mode == QCOW_ZERO_DISCARD;
    uint32_t zeroed = is_unallocated_fine ? mask & held : mask;

    if (cluster->is_compressed && mask != all)
        return false;
    if (context->version < 3 && zeroed != 0) {
        /* Version 2 can only say "unallocated", which shows the backing file. */
        if (context->has_backing || mode == QCOW_ZERO_KEEP)
            return false;
        zeroed = 0;
    }
    if (cluster->is_compressed)
        *cluster = (struct qcow_cluster){.host_offset = 0};
    cluster->data &= ~mask;
    cluster->zero |= zeroed;
    return true;
}
