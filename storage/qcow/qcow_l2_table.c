/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_table.c - see qcow_l2_table.h.
 * Tested by: qcow_sharing_test.c and qcow_power_cut_test.c
 *
 * An internal snapshot shares L2 tables and data clusters with the active image. A count tells how
 * many of these trees reach a cluster, so it is 2 for a table that one snapshot shares and for each
 * cluster below that table. Copying the table changes its own count alone: the snapshot still
 * reaches the data through the old table, the image through the copy.
 *
 *   copy     the new table is counted and written at once, before the L1 entry that points to it
 *   flush    counts and new tables, barrier, L1 entry, barrier
 *   release  the old table's count is lowered in memory, and on disk with the next flush
 */
#include "storage/qcow/qcow_l2_table.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_map.h"

bool qcow_l2_table_is_alone_locked(struct qcow_image *image, uint64_t host_offset,
                                   enum qcow_counts counts)
{
    uint64_t count = 0, cluster = qcow_image_cluster_of(image, host_offset);

    if (!qcow_l2_table_asks_counts(image))
        return true;
    if (counts == QCOW_COUNTS_LOADED && !qcow_refcounts_is_loaded(&image->refcounts, cluster))
        return false;
    struct err *err = qcow_refcounts_get(&image->refcounts, cluster, &count);
    err_free(err); /* then it is not known to be, and is copied */
    return err == NULL && count == 1;
}

struct err *qcow_l2_table_find_locked(struct qcow_image *image, uint64_t offset,
                                      struct qcow_l2_table *out_table)
{
    uint64_t l1_index = offset >> qcow_l2_table_reach_bits(image);

    TRY(qcow_l1_load(&image->l1));
    uint64_t entry = image->l1.entries[l1_index];
    uint64_t host_offset = entry & QCOW_OFFSET_MASK;
    uint64_t cluster = qcow_image_cluster_of(image, host_offset);
    enum qcow_table_kind kind = qcow_guard_kind(&image->guard, cluster);

    if ((entry & ~(QCOW_OFFSET_MASK | QCOW_ENTRY_COPIED)) != 0 ||
        qcow_image_in_cluster(image, host_offset) != 0 || cluster >= image->allocator.fresh_from ||
        (host_offset != 0 && kind != QCOW_TABLE_NONE && kind != QCOW_TABLE_L2))
        return qcow_map_malformed(image, "L1 entry", offset);
    *out_table = (struct qcow_l2_table){
        .l1_index = l1_index,
        .host_offset = host_offset,
        .is_copied = (entry & QCOW_ENTRY_COPIED) != 0,
    };
    return NULL;
}

bool qcow_l2_table_is_shared_locked(struct qcow_image *image, const struct qcow_l2_table *table,
                                    enum qcow_counts counts)
{
    return table->host_offset != 0 &&
           (!table->is_copied || !qcow_l2_table_is_alone_locked(image, table->host_offset, counts));
}

/* A new table is complete on disk before its cluster is pointed to: what was there before must
 * never be taken for entries. */
static struct err *place_locked(struct qcow_image *image, const struct qcow_l2_table *old,
                                const uint8_t *content) REQUIRES(&image->lock)
{
    struct qcow_run run;

    TRY(qcow_image_take_locked(image, 1, &run));
    uint64_t host_offset = run.first << image->header.cluster_bits;
    struct err *err = qcow_guard_add(&image->guard, QCOW_TABLE_L2, run.first, 1);
    if (err == NULL)
        err = content == NULL
                  ? host_file_write_zeroes(image->file, host_offset, image->cluster_bytes)
                  : host_file_write_bytes(image->file, content, image->cluster_bytes, host_offset);
    if (err != NULL) {
        qcow_guard_remove(&image->guard, run.first, 1);
        qcow_allocator_untake(&image->allocator, &run);
        return err;
    }
    qcow_l1_set(&image->l1, old->l1_index, host_offset | QCOW_ENTRY_COPIED);
    return NULL;
}

/* "This cluster may be overwritten" has to go where the count says otherwise. */
static void clear_copied_locked(struct qcow_image *image, uint8_t *content) REQUIRES(&image->lock)
{
    size_t entry_bytes = (size_t)1 << qcow_entry_bytes_bits(&image->context);

    for (uint64_t at = 0; at < image->cluster_bytes; at += entry_bytes) {
        struct reader in = reader_of(content + at, 8);
        struct writer out = writer_of(content + at, 8);
        uint64_t descriptor = reader_be64(&in);
        if ((descriptor & QCOW_ENTRY_COPIED) != 0 &&
            !qcow_l2_table_is_alone_locked(image, descriptor & QCOW_OFFSET_MASK, QCOW_COUNTS_READ))
            writer_be64(&out, descriptor & ~QCOW_ENTRY_COPIED);
    }
}

static struct err *copy_locked(struct qcow_image *image, const struct qcow_l2_table *shared)
    REQUIRES(&image->lock)
{
    CLEANUP(cleanup_free) uint8_t *content = calloc(1, image->cluster_bytes);
    if (content == NULL)
        return err_new(ERR_NO_MEMORY, "copy an L2 table of '%s'", image->file->path);

    TRY(host_file_read_bytes(image->file, content, image->cluster_bytes, shared->host_offset));
    clear_copied_locked(image, content);
    TRY(place_locked(image, shared, content));
    qcow_l2_cache_forget(&image->l2, shared->l1_index);
    qcow_allocator_drop(&image->allocator, shared->host_offset, image->cluster_bytes);
    return NULL;
}

struct err *qcow_l2_table_own_locked(struct qcow_image *image, uint64_t offset)
{
    struct qcow_l2_table table = {.host_offset = 0};

    TRY(qcow_l2_table_find_locked(image, offset, &table));
    if (table.host_offset == 0)
        return place_locked(image, &table, NULL);
    return qcow_l2_table_is_shared_locked(image, &table, QCOW_COUNTS_READ)
               ? copy_locked(image, &table)
               : NULL;
}
