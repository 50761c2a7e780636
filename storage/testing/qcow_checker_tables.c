/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker_tables.c - snapshot and bitmap tables for the checker.
 * Tested by: qcow_checker_test.c
 */
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/testing/qcow_checker_internal.h"

#define SNAPSHOT_ROW_BYTES    40u
#define SNAPSHOT_EXTRA_MAX    1024u
#define SNAPSHOTS_BYTES_MAX   (64 * MIB)
#define BITMAP_ROW_BYTES      24u
#define BITMAP_FLAGS_RESERVED (~(uint64_t)7)
#define BITMAP_FLAG_EXTRA     4u

const char *checked_snapshot_parse(const struct checked_image *image, uint64_t *inout_offset,
                                   struct checked_snapshot *out_snapshot)
{
    uint64_t at = align_up(*inout_offset, 8);
    uint64_t id_bytes = checked_number(image, at + 12, 2);
    uint64_t name_bytes = checked_number(image, at + 14, 2);
    uint64_t extra = checked_number(image, at + 36, 4);
    uint64_t name_at = at + SNAPSHOT_ROW_BYTES + extra + id_bytes;

    *out_snapshot = (struct checked_snapshot){
        .l1_offset = checked_number(image, at, 8),
        .l1_entries = (uint32_t)checked_number(image, at + 8, 4),
        .virtual_bytes = image->virtual_bytes,
    };
    if (extra > SNAPSHOT_EXTRA_MAX)
        return "a snapshot has too much extra data";
    if (image->version == 3 && extra < 16)
        return "a snapshot does not tell its disk's size";
    if (extra >= 16)
        out_snapshot->virtual_bytes = checked_number(image, at + SNAPSHOT_ROW_BYTES + 8, 8);
    for (uint64_t i = 0; i < MIN(name_bytes, sizeof(out_snapshot->name) - 1); i++)
        out_snapshot->name[i] = (char)checked_number(image, name_at + i, 1);
    *inout_offset = name_at + name_bytes;

    if (name_at + name_bytes > align_up(image->len, image->cluster_bytes))
        return "the snapshot table reaches behind the end of the file";
    if (out_snapshot->l1_offset % image->cluster_bytes != 0 ||
        out_snapshot->l1_offset > INT64_MAX - 32 * MIB)
        return "a snapshot's L1 table is not aligned";
    if ((uint64_t)out_snapshot->l1_entries * 8 > 32 * MIB)
        return "a snapshot's L1 table is too large";
    return NULL;
}

void checked_walk_snapshots(struct checked_walk *walk)
{
    const struct checked_image *image = &walk->image;
    uint64_t at = image->snapshots_offset;

    if (image->snapshot_count == 0)
        return;
    for (uint32_t i = 0; i < image->snapshot_count; i++) {
        struct checked_snapshot snapshot;
        const char *fault = checked_snapshot_parse(image, &at, &snapshot);
        if (fault == NULL && at - image->snapshots_offset > SNAPSHOTS_BYTES_MAX)
            fault = "the snapshot table is too large";
        if (fault != NULL) {
            checked_complain(walk, "snapshot %u: %s", i, fault);
            return;
        }
        checked_refer(walk, CHECKED_USE_L1, snapshot.l1_offset, (uint64_t)snapshot.l1_entries * 8,
                      1);
        checked_walk_l1(walk, snapshot.l1_offset, snapshot.l1_entries);
    }
    checked_refer(walk, CHECKED_USE_EXTRA, image->snapshots_offset, at - image->snapshots_offset,
                  1);
}

static void walk_bitmap_table(struct checked_walk *walk, uint64_t offset, uint64_t entries)
{
    const struct checked_image *image = &walk->image;

    if (offset % image->cluster_bytes != 0 || offset >= image->len) {
        checked_complain(walk, "a bitmap's table at 0x%llx is not in the file",
                         (unsigned long long)offset);
        return;
    }
    checked_refer(walk, CHECKED_USE_EXTRA, offset, entries * 8, 1);
    for (uint64_t i = 0; i < MIN(entries, image->len / 8); i++) {
        uint64_t entry = checked_number(image, offset + i * 8, 8);
        uint64_t data = entry & CHECKED_OFFSET_BITS;
        if (!checked_may_go_on(walk, 1))
            return;
        if ((entry & ~(CHECKED_OFFSET_BITS | 1)) != 0 || (data != 0 && (entry & 1) != 0))
            checked_complain(walk, "bitmap entry 0x%llx is malformed", (unsigned long long)entry);
        else if (data != 0)
            checked_refer(walk, CHECKED_USE_EXTRA, data, image->cluster_bytes, 1);
    }
}

/* Gives the bytes of the row; 0 when it is malformed. */
static uint64_t walk_bitmap(struct checked_walk *walk, uint64_t at, uint64_t left)
{
    const struct checked_image *image = &walk->image;
    uint64_t flags = checked_number(image, at + 12, 4);
    uint64_t granularity_bits = checked_number(image, at + 17, 1);
    uint64_t name_bytes = checked_number(image, at + 18, 2);
    uint64_t extra = checked_number(image, at + 20, 4);
    uint64_t bytes = align_up(BITMAP_ROW_BYTES + name_bytes + extra, 8);

    if (bytes > left || name_bytes == 0 || name_bytes > 1023 || granularity_bits > 31 ||
        checked_number(image, at + 16, 1) != 1 || (flags & BITMAP_FLAGS_RESERVED) != 0 ||
        (extra != 0 && (flags & BITMAP_FLAG_EXTRA) == 0)) {
        checked_complain(walk, "the bitmap directory's row at 0x%llx is malformed",
                         (unsigned long long)at);
        return 0;
    }
    walk_bitmap_table(walk, checked_number(image, at, 8), checked_number(image, at + 8, 4));
    return bytes;
}

void checked_walk_bitmaps(struct checked_walk *walk)
{
    const struct checked_image *image = &walk->image;
    uint64_t left = image->bitmaps_bytes, at = image->bitmaps_offset;

    if ((image->autoclear & 1) == 0)
        return; /* what an extension says does not count then */
    if (!image->has_bitmaps) {
        checked_complain(walk, "bitmaps are said to be sound and there are none");
        return;
    }
    if (image->bitmap_count == 0 || image->bitmap_count > 65535 || at % image->cluster_bytes != 0 ||
        at >= image->len || left > image->len - at) {
        checked_complain(walk, "the bitmap directory is not in the file");
        return;
    }
    checked_refer(walk, CHECKED_USE_EXTRA, at, left, 1);
    for (uint64_t i = 0; i < image->bitmap_count; i++) {
        uint64_t bytes = left < BITMAP_ROW_BYTES ? 0 : walk_bitmap(walk, at, left);
        if (bytes == 0) {
            checked_complain(walk, "the bitmap directory ends after %llu of %llu bitmaps",
                             (unsigned long long)i, (unsigned long long)image->bitmap_count);
            return;
        }
        at += bytes;
        left -= bytes;
    }
    if (left != 0)
        checked_complain(walk, "the bitmap directory is %llu bytes too long",
                         (unsigned long long)left);
}
