/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker_view.c - what a guest would see of an image or of a snapshot in it.
 * Tested by: qcow_checker_test.c
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/checked_math.h"
#include "storage/testing/qcow_checker_internal.h"
#include "storage/testing/sector_stamp.h"

bool qcow_checker_view(const uint8_t *bytes, size_t len, struct qcow_view *out_view)
{
    struct checked_image image;

    if (checked_image_parse(&image, bytes, len) != NULL)
        return false;
    *out_view = (struct qcow_view){.image = bytes,
                                   .len = len,
                                   .l1_offset = image.l1_offset,
                                   .l1_entries = image.l1_entries,
                                   .virtual_bytes = image.virtual_bytes};
    return true;
}

bool qcow_checker_snapshot_view(const uint8_t *bytes, size_t len, uint32_t index,
                                struct qcow_view *out_view)
{
    struct checked_image image;
    struct checked_snapshot snapshot;

    if (checked_image_parse(&image, bytes, len) != NULL || index >= image.snapshot_count)
        return false;
    uint64_t at = image.snapshots_offset;
    for (uint32_t i = 0; i <= index; i++)
        if (checked_snapshot_parse(&image, &at, &snapshot) != NULL)
            return false;
    *out_view = (struct qcow_view){.image = bytes,
                                   .len = len,
                                   .l1_offset = snapshot.l1_offset,
                                   .l1_entries = snapshot.l1_entries,
                                   .virtual_bytes = snapshot.virtual_bytes};
    memcpy(out_view->name, snapshot.name, sizeof(out_view->name));
    return true;
}

/* Both take as much as makes a cluster; what follows is not looked at. */
static bool inflate_raw(const uint8_t *from, size_t from_len, uint8_t *to, size_t to_len)
{
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)from,
                       .avail_in = (unsigned)from_len,
                       .next_out = to,
                       .avail_out = (unsigned)to_len};

    if (inflateInit2(&stream, -15) != Z_OK)
        return false;
    (void)inflate(&stream, Z_FINISH);
    bool is_whole = stream.avail_out == 0;
    (void)inflateEnd(&stream);
    return is_whole;
}

static bool decompress_zstd(const uint8_t *from, size_t from_len, uint8_t *to, size_t to_len)
{
    ZSTD_inBuffer in = {from, from_len, 0};
    ZSTD_outBuffer out = {to, to_len, 0};
    ZSTD_DStream *stream = ZSTD_createDStream();
    size_t left = 1;

    if (stream == NULL)
        return false;
    while (!ZSTD_isError(left) && out.pos < out.size) {
        size_t before = in.pos + out.pos;
        left = ZSTD_decompressStream(stream, &out, &in);
        if (ZSTD_isError(left) || in.pos + out.pos == before)
            break;
    }
    ZSTD_freeDStream(stream);
    return !ZSTD_isError(left) && out.pos == out.size;
}

static bool decompress(const struct checked_image *image, const struct checked_entry *entry,
                       uint8_t *cluster)
{
    uint8_t *input = calloc(1, (size_t)entry->host_bytes);

    if (input == NULL)
        return false;
    if (entry->host_offset < image->len)
        memcpy(input, image->bytes + entry->host_offset,
               (size_t)MIN(entry->host_bytes, image->len - entry->host_offset));
    bool is_whole = image->is_zstd ? decompress_zstd(input, (size_t)entry->host_bytes, cluster,
                                                     (size_t)image->cluster_bytes)
                                   : inflate_raw(input, (size_t)entry->host_bytes, cluster,
                                                 (size_t)image->cluster_bytes);
    free(input);
    return is_whole;
}

static void copy_from_file(const struct checked_image *image, uint64_t at, uint8_t *sector)
{
    size_t have = at < image->len ? (size_t)MIN((uint64_t)SECTOR_BYTES, image->len - at) : 0;

    if (have > 0)
        memcpy(sector, image->bytes + at, have);
    memset(sector + have, 0, SECTOR_BYTES - have);
}

/* Sectors of one cluster. */
static void read_cluster(const struct checked_image *image, const struct checked_entry *entry,
                         uint64_t in_cluster, size_t sector_count, uint8_t *data,
                         enum qcow_sector *kinds)
{
    uint8_t *cluster = NULL;
    bool is_broken = entry->fault != NULL;

    if (entry->is_compressed && !is_broken) {
        cluster = malloc((size_t)image->cluster_bytes);
        is_broken = cluster == NULL || !decompress(image, entry, cluster);
    }
    for (size_t i = 0; i < sector_count; i++) {
        uint64_t at = in_cluster + i * SECTOR_BYTES;
        uint32_t bit = (uint32_t)1 << (at * 32 >> image->cluster_bits);
        uint8_t *sector = data + i * SECTOR_BYTES;
        kinds[i] = is_broken                ? QCOW_SECTOR_BROKEN
                   : entry->zero_mask & bit ? QCOW_SECTOR_ZERO
                   : entry->data_mask & bit ? QCOW_SECTOR_DATA
                                            : QCOW_SECTOR_BELOW;
        if (kinds[i] != QCOW_SECTOR_DATA)
            memset(sector, 0, SECTOR_BYTES);
        else if (cluster != NULL)
            memcpy(sector, cluster + at, SECTOR_BYTES);
        else
            copy_from_file(image, entry->host_offset + at, sector);
    }
    free(cluster);
}

static struct checked_entry entry_of(const struct qcow_view *view,
                                     const struct checked_image *image, uint64_t guest_cluster)
{
    uint64_t per_table = checked_entries_per_table(image);
    uint64_t l1_index = guest_cluster / per_table, table = 0;

    if (l1_index < view->l1_entries)
        table = checked_number(image, view->l1_offset + l1_index * 8, 8) & CHECKED_OFFSET_BITS;
    return table == 0 ? (struct checked_entry){.word = 0}
                      : checked_entry_at(image, table, guest_cluster % per_table);
}

void qcow_view_read(const struct qcow_view *view, uint64_t guest_offset, size_t sector_count,
                    uint8_t *data, enum qcow_sector *kinds)
{
    struct checked_image image;

    if (checked_image_parse(&image, view->image, view->len) != NULL) {
        memset(data, 0, sector_count * SECTOR_BYTES);
        for (size_t i = 0; i < sector_count; i++)
            kinds[i] = QCOW_SECTOR_BROKEN;
        return;
    }
    while (sector_count > 0) {
        struct checked_entry entry = entry_of(view, &image, guest_offset >> image.cluster_bits);
        uint64_t in_cluster = guest_offset % image.cluster_bytes;
        size_t count = MIN((size_t)(image.cluster_bytes - in_cluster) / SECTOR_BYTES, sector_count);
        read_cluster(&image, &entry, in_cluster, count, data, kinds);
        guest_offset += count * SECTOR_BYTES;
        data += count * SECTOR_BYTES;
        kinds += count;
        sector_count -= count;
    }
}

enum qcow_sector qcow_checker_read(const uint8_t *image, size_t len, uint64_t guest_offset,
                                   uint8_t out_sector[512])
{
    struct qcow_view view;
    enum qcow_sector kind = QCOW_SECTOR_BROKEN;

    if (qcow_checker_view(image, len, &view))
        qcow_view_read(&view, guest_offset, 1, out_sector, &kind);
    return kind;
}
