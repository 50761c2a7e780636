/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_map.c - see qcow_map.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 */
#include "storage/qcow/qcow_map.h"

#include <inttypes.h>

#define L1_OFFSET_MASK 0x00fffffffffffe00u

static struct err *malformed(const struct qcow_image *image, const char *what, uint64_t offset)
{
    return err_new(ERR_INVALID,
                   "image '%s': the %s for guest offset %" PRIu64
                   " is malformed; repair the image with 'qemu-img check -r all'",
                   image->file->path, what, offset);
}

static uint64_t l2_index_of(const struct qcow_image *image, uint64_t offset)
{
    return qcow_image_cluster_of(image, offset) & (image->cluster_bytes / 8 - 1);
}

static uint64_t l1_index_of(const struct qcow_image *image, uint64_t offset)
{
    return offset >> (image->header.cluster_bits * 2 - 3);
}

/* 0: there is no table. */
static struct err *table_of_locked(struct qcow_image *image, uint64_t offset,
                                   uint64_t *out_table_offset) REQUIRES(&image->lock)
{
    uint64_t entry = image->l1.entries[l1_index_of(image, offset)];
    uint64_t table_offset = entry & L1_OFFSET_MASK;

    if ((entry & ~(L1_OFFSET_MASK | QCOW_ENTRY_COPIED)) != 0 ||
        qcow_image_in_cluster(image, table_offset) != 0 ||
        qcow_image_cluster_of(image, table_offset) >= image->allocator.fresh_from ||
        (table_offset != 0 &&
         qcow_allocator_is_table(&image->allocator, qcow_image_cluster_of(image, table_offset))))
        return malformed(image, "L1 entry", offset);
    *out_table_offset = table_offset;
    return NULL;
}

/* Guest data lies inside the file and never where the image's own tables are. */
static bool is_plausible_locked(struct qcow_image *image, const struct qcow_cluster *cluster)
    REQUIRES(&image->lock)
{
    uint64_t host_cluster = qcow_image_cluster_of(image, cluster->host_offset);

    return cluster->host_offset == 0 || (host_cluster < image->allocator.fresh_from &&
                                         !qcow_allocator_is_table(&image->allocator, host_cluster));
}

static struct err *decode_locked(struct qcow_image *image, uint64_t entry, uint64_t offset,
                                 struct qcow_cluster *out_cluster) REQUIRES(&image->lock)
{
    if (!qcow_l2_entry_decode(entry, &image->context, out_cluster) ||
        !is_plausible_locked(image, out_cluster))
        return malformed(image, "L2 entry", offset);
    return NULL;
}

struct err *qcow_map_entries_locked(struct qcow_image *image, uint64_t offset,
                                    struct qcow_slice **out_slice, uint64_t **out_entries,
                                    uint64_t *out_count)
{
    uint64_t table_offset;
    uint64_t slice_entries = (uint64_t)1 << image->l2.slice_bits;
    uint64_t in_slice = l2_index_of(image, offset) & (slice_entries - 1);

    TRY(table_of_locked(image, offset, &table_offset));
    TRY(qcow_l2_cache_get(&image->l2, l1_index_of(image, offset), l2_index_of(image, offset),
                          table_offset, out_slice));
    *out_entries = (*out_slice)->entries + in_slice;
    *out_count = slice_entries - in_slice;
    return NULL;
}

/* Does the cluster that follows `steps` clusters later belong to the same extent? */
static bool continues(const struct qcow_cluster *first, const struct qcow_cluster *next,
                      uint64_t distance)
{
    if (next->kind != first->kind || next->is_copied != first->is_copied ||
        first->kind == QCOW_CLUSTER_COMPRESSED)
        return false;
    return first->host_offset == 0 ? next->host_offset == 0
                                   : next->host_offset == first->host_offset + distance;
}

struct err *qcow_map_lookup_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                   struct qcow_extent *out_extent)
{
    struct qcow_extent extent = {.cluster = {.kind = QCOW_CLUSTER_UNALLOCATED}};
    uint64_t table_offset, count, *entries;
    struct qcow_slice *slice;
    uint64_t in_cluster = qcow_image_in_cluster(image, offset);

    TRY(table_of_locked(image, offset, &table_offset));
    if (table_offset == 0) {
        uint64_t reach = image->cluster_bytes * (image->cluster_bytes / 8);
        out_extent->cluster = extent.cluster;
        out_extent->bytes = MIN(len, reach - (offset & (reach - 1)));
        return NULL;
    }

    TRY(qcow_map_entries_locked(image, offset, &slice, &entries, &count));
    TRY(decode_locked(image, entries[0], offset, &extent.cluster));
    extent.bytes = image->cluster_bytes - in_cluster;
    for (uint64_t i = 1; i < count && extent.bytes < len; i++) {
        struct qcow_cluster next;
        if (!qcow_l2_entry_decode(entries[i], &image->context, &next) ||
            !continues(&extent.cluster, &next, i << image->header.cluster_bits) ||
            !is_plausible_locked(image, &next))
            break;
        extent.bytes += image->cluster_bytes;
    }
    extent.bytes = MIN(extent.bytes, len);
    *out_extent = extent;
    return NULL;
}

/* The new table is zeroed at once: what was there before must never be taken for entries. */
static struct err *make_table_locked(struct qcow_image *image, uint64_t offset)
    REQUIRES(&image->lock)
{
    struct qcow_run run;

    TRY(qcow_allocator_take(&image->allocator, 1, &run));
    uint64_t table_offset = run.first << image->header.cluster_bits;
    struct err *err = host_file_write_zeroes(image->file, table_offset, image->cluster_bytes);
    if (err != NULL) {
        qcow_allocator_untake(&image->allocator, &run);
        return err;
    }
    qcow_l1_set(&image->l1, l1_index_of(image, offset), table_offset | QCOW_ENTRY_COPIED);
    return NULL;
}

struct err *qcow_map_ensure_table_locked(struct qcow_image *image, uint64_t offset)
{
    uint64_t table_offset;

    TRY(table_of_locked(image, offset, &table_offset));
    if (table_offset == 0)
        return make_table_locked(image, offset);
    if ((image->l1.entries[l1_index_of(image, offset)] & QCOW_ENTRY_COPIED) == 0)
        return err_new(ERR_INCOMPATIBLE,
                       "image '%s' shares an L2 table, as an unfinished internal snapshot leaves "
                       "it; repair it with 'qemu-img check -r all'",
                       image->file->path);
    return NULL;
}

void qcow_map_replace_locked(struct qcow_image *image, struct qcow_slice *slice, uint64_t *entry,
                             uint64_t new_entry)
{
    struct qcow_cluster old = {.host_offset = 0};

    if (*entry == new_entry)
        return;

    /* What a malformed entry may have pointed to leaks. */
    bool is_known = qcow_l2_entry_decode(*entry, &image->context, &old);
    uint64_t kept = new_entry & QCOW_ENTRY_OFFSET_MASK;
    if (is_known && old.kind == QCOW_CLUSTER_COMPRESSED)
        qcow_allocator_drop(&image->allocator, old.host_offset, old.compressed_bytes);
    else if (is_known && old.host_offset != 0 && old.host_offset != kept)
        qcow_allocator_drop(&image->allocator, old.host_offset, image->cluster_bytes);
    *entry = new_entry;
    qcow_l2_cache_mark_dirty(&image->l2, slice);
}
