/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_map.c - see qcow_map.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 */
#include "storage/qcow/qcow_map.h"

#include <inttypes.h>

#include "storage/qcow/qcow_l2_table.h"

struct err *qcow_map_malformed(const struct qcow_image *image, const char *what, uint64_t offset)
{
    return err_new(ERR_INVALID,
                   "image '%s': the %s for guest offset %" PRIu64
                   " is malformed; repair the image with 'vm-disk check -r all'",
                   image->file->path, what, offset);
}

static uint64_t l2_index_of(const struct qcow_image *image, uint64_t offset)
{
    uint64_t entries = (uint64_t)1 << qcow_entry_table_bits(&image->context);

    return qcow_image_cluster_of(image, offset) & (entries - 1);
}

/* Guest data lies inside the file and never where the image's own tables are. */
static bool is_plausible_locked(struct qcow_image *image, const struct qcow_cluster *cluster)
    REQUIRES(&image->lock)
{
    uint64_t host_cluster = qcow_image_cluster_of(image, cluster->host_offset);

    return cluster->host_offset == 0 ||
           (host_cluster < image->allocator.fresh_from &&
            qcow_guard_kind(&image->guard, host_cluster) == QCOW_TABLE_NONE);
}

struct err *qcow_map_entries_locked(struct qcow_image *image, uint64_t offset,
                                    enum qcow_counts counts, struct qcow_entries *out_entries)
{
    struct qcow_l2_table table;
    uint64_t slice_entries = (uint64_t)1 << image->l2.slice_bits;
    uint64_t in_slice = l2_index_of(image, offset) & (slice_entries - 1);
    struct qcow_entries entries = {
        .first = in_slice, .count = slice_entries - in_slice, .counts = counts};

    TRY(qcow_l2_table_find_locked(image, offset, &table));
    if (table.host_offset == 0) {
        *out_entries = (struct qcow_entries){.count = 0};
        return NULL;
    }
    entries.is_shared =
        counts != QCOW_COUNTS_NONE && qcow_l2_table_is_shared_locked(image, &table, counts);
    TRY(qcow_l2_cache_get(&image->l2, table.l1_index, l2_index_of(image, offset), table.host_offset,
                          &entries.slice));
    *out_entries = entries;
    return NULL;
}

bool qcow_map_cluster_locked(struct qcow_image *image, const struct qcow_entries *entries,
                             uint64_t index, struct qcow_cluster *out_cluster)
{
    struct qcow_entry entry =
        qcow_l2_cache_entry(&image->l2, entries->slice, entries->first + index);

    if (!qcow_l2_entry_decode(entry, &image->context, out_cluster) ||
        !is_plausible_locked(image, out_cluster))
        return false;
    out_cluster->is_copied &=
        entries->counts != QCOW_COUNTS_NONE && !entries->is_shared &&
        qcow_l2_table_is_alone_locked(image, out_cluster->host_offset, entries->counts);
    return true;
}

/* Does a cluster's first subcluster go on where the extent ends? */
static bool continues(const struct qcow_extent *extent, const struct qcow_cluster *next,
                      enum qcow_kind next_kind)
{
    if (next_kind != extent->kind || next->is_copied != extent->is_copied ||
        extent->kind == QCOW_KIND_COMPRESSED)
        return false;
    return extent->host_offset == 0 ? next->host_offset == 0
                                    : next->host_offset == extent->host_offset + extent->bytes;
}

/* The part of the extent that lies in the first cluster. True when it reaches the cluster's end. */
static bool begin_extent(const struct qcow_image *image, const struct qcow_cluster *cluster,
                         uint64_t offset, struct qcow_extent *out_extent)
{
    uint64_t in_cluster = qcow_image_in_cluster(image, offset);
    unsigned first = (unsigned)(in_cluster >> image->context.subcluster_bits), count;
    enum qcow_kind kind = qcow_cluster_kind(cluster, &image->context, first, &count);
    bool has_place = cluster->host_offset != 0 && !cluster->is_compressed;

    *out_extent = (struct qcow_extent){
        .kind = kind,
        .is_copied = cluster->is_copied,
        .host_offset = cluster->host_offset + (has_place ? in_cluster : 0),
        .compressed_bytes = cluster->compressed_bytes,
        .bytes = ((uint64_t)(first + count) << image->context.subcluster_bits) - in_cluster,
    };
    return first + count == qcow_subcluster_count(&image->context);
}

struct err *qcow_map_lookup_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                   enum qcow_counts counts, struct qcow_extent *out_extent)
{
    struct qcow_entries entries;
    struct qcow_cluster cluster;
    struct qcow_extent extent = {.kind = QCOW_KIND_UNALLOCATED};

    TRY(qcow_map_entries_locked(image, offset, counts, &entries));
    if (entries.count == 0) {
        uint64_t reach = (uint64_t)1 << qcow_l2_table_reach_bits(image);
        extent.bytes = MIN(len, reach - (offset & (reach - 1)));
        *out_extent = extent;
        return NULL;
    }

    if (!qcow_map_cluster_locked(image, &entries, 0, &cluster))
        return qcow_map_malformed(image, "L2 entry", offset);
    bool goes_on = begin_extent(image, &cluster, offset, &extent);
    for (uint64_t i = 1; i < entries.count && goes_on && extent.bytes < len; i++) {
        unsigned count;
        if (!qcow_map_cluster_locked(image, &entries, i, &cluster) ||
            !continues(&extent, &cluster, qcow_cluster_kind(&cluster, &image->context, 0, &count)))
            break;
        extent.bytes += (uint64_t)count << image->context.subcluster_bits;
        goes_on = count == qcow_subcluster_count(&image->context);
    }
    extent.bytes = MIN(extent.bytes, len);
    *out_extent = extent;
    return NULL;
}

void qcow_map_replace_locked(struct qcow_image *image, const struct qcow_entries *entries,
                             uint64_t index, const struct qcow_cluster *cluster)
{
    struct qcow_entry new_entry = qcow_l2_entry_encode(cluster, &image->context);
    struct qcow_entry old_entry =
        qcow_l2_cache_entry(&image->l2, entries->slice, entries->first + index);
    struct qcow_cluster old;

    if (old_entry.descriptor == new_entry.descriptor && old_entry.bitmap == new_entry.bitmap)
        return;

    /* What a malformed entry may have pointed to leaks. */
    bool is_known = qcow_l2_entry_decode(old_entry, &image->context, &old);
    if (is_known && old.is_compressed)
        qcow_allocator_drop(&image->allocator, old.host_offset, old.compressed_bytes);
    else if (is_known && old.host_offset != 0 && old.host_offset != cluster->host_offset)
        qcow_allocator_drop(&image->allocator, old.host_offset, image->cluster_bytes);
    qcow_l2_cache_set_entry(&image->l2, entries->slice, entries->first + index, new_entry);
}
