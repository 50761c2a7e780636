/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_check_extras.c - the internal snapshots and the bitmaps of an image.
 * Tested by: qcow_check_test.c
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/qcow/qcow_check_internal.h"
#include "storage/qcow/qcow_snapshot_table.h"

#define BITMAPS_MAX            65535u
#define DIRECTORY_BYTES_MAX    (64 * MIB)
#define BITMAP_TABLE_MAX       0x8000000u
#define BITMAP_FLAGS_RESERVED  (~(uint32_t)7)
#define BITMAP_FLAG_EXTRA      4u
#define BITMAP_TYPE_DIRTY      1u
#define BITMAP_GRANULARITY_MAX 31u
#define BITMAP_NAME_BYTES_MAX  1023u
#define DIRECTORY_ENTRY_BYTES  24u

struct err *qcow_check_snapshots(struct qcow_check *check)
{
    struct qcow_snapshot_table table;
    bool is_usable;

    if (check->header.snapshot_count == 0)
        return NULL;
    struct err *err = qcow_snapshot_table_load(check->file, &check->header, &table);
    if (err != NULL) {
        if (err_kind(err) != ERR_INVALID)
            return err;
        qcow_check_error(check, "%s", err_message(err));
        err_free(err);
        return NULL;
    }
    err = qcow_check_refer(check, check->header.snapshots_offset, table.table_bytes, 1,
                           QCOW_OWNER_SNAPSHOT_TABLE, &is_usable);
    for (uint32_t i = 0; err == NULL && i < table.count; i++)
        err = qcow_check_l1(check, table.list[i].l1_offset, table.list[i].l1_entries, false);
    qcow_snapshot_table_finish(&table);
    return err;
}

/* One entry of a bitmap's table: bits that are all zero or all one need no cluster. */
static struct err *check_bitmap_entry(struct qcow_check *check, uint64_t entry)
{
    uint64_t offset = entry & QCOW_OFFSET_MASK;
    bool is_usable;

    if ((entry & ~(QCOW_OFFSET_MASK | 1)) != 0 || offset % check->cluster_bytes != 0 ||
        (offset != 0 && (entry & 1) != 0)) {
        qcow_check_error(check, "the entry 0x%" PRIx64 " of a bitmap is malformed", entry);
        return NULL;
    }
    return offset == 0 ? NULL
                       : qcow_check_refer(check, offset, check->cluster_bytes, 1, QCOW_OWNER_BITMAP,
                                          &is_usable);
}

static struct err *check_bitmap(struct qcow_check *check, uint64_t table_offset, uint32_t entries)
{
    CLEANUP(cleanup_free) uint8_t *data = NULL;
    bool is_usable = false;

    if (entries > BITMAP_TABLE_MAX || table_offset % check->cluster_bytes != 0) {
        qcow_check_error(check,
                         "a bitmap's table of %" PRIu32 " entries at %" PRIu64 " is not possible",
                         entries, table_offset);
        return NULL;
    }
    TRY(qcow_check_refer(check, table_offset, (uint64_t)entries * 8, 1, QCOW_OWNER_BITMAP,
                         &is_usable));
    if (!is_usable)
        return NULL;
    data = malloc((size_t)entries * 8);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "bitmap");
    TRY(host_file_read_bytes(check->file, data, (size_t)entries * 8, table_offset));
    struct reader in = reader_of(data, (size_t)entries * 8);
    for (uint32_t i = 0; i < entries; i++)
        TRY(check_bitmap_entry(check, reader_be64(&in)));
    return NULL;
}

static struct err *check_directory(struct qcow_check *check, struct reader *in)
{
    for (uint32_t i = 0; i < check->header.bitmap_count; i++) {
        uint64_t table_offset = reader_be64(in);
        uint32_t entries = reader_be32(in);
        uint32_t flags = reader_be32(in);
        uint8_t type = reader_u8(in), granularity_bits = reader_u8(in);
        size_t name_bytes = reader_be16(in);
        size_t extra_bytes = reader_be32(in);
        size_t bytes = DIRECTORY_ENTRY_BYTES + name_bytes + extra_bytes;
        reader_skip(in, name_bytes + extra_bytes);
        reader_skip(in, (size_t)align_up(bytes, 8) - bytes);
        if (!reader_ok(in)) {
            qcow_check_error(check, "the directory of bitmaps is cut short");
            return NULL;
        }
        if ((flags & BITMAP_FLAGS_RESERVED) != 0 || type != BITMAP_TYPE_DIRTY ||
            granularity_bits > BITMAP_GRANULARITY_MAX || name_bytes == 0 ||
            name_bytes > BITMAP_NAME_BYTES_MAX ||
            (extra_bytes > 0 && (flags & BITMAP_FLAG_EXTRA) == 0))
            qcow_check_error(check, "entry %" PRIu32 " of the directory of bitmaps is malformed",
                             i);
        TRY(check_bitmap(check, table_offset, entries));
    }
    if (reader_left(in) > 0)
        qcow_check_error(check, "the directory of bitmaps is %zu bytes too long", reader_left(in));
    return NULL;
}

/* Without the autoclear bit the extension means nothing, and what it names leaks. */
struct err *qcow_check_bitmaps(struct qcow_check *check)
{
    const struct qcow_header *header = &check->header;
    CLEANUP(cleanup_free) uint8_t *data = NULL;
    bool is_usable = false;

    if ((header->autoclear & QCOW_AUTOCLEAR_BITMAPS) == 0)
        return NULL;
    if (!header->has_bitmap_extension) {
        qcow_check_error(check, "the header says that bitmaps are kept, but names none");
        return NULL;
    }
    if (header->bitmap_count == 0 || header->bitmap_count > BITMAPS_MAX ||
        header->bitmap_directory_bytes == 0 ||
        header->bitmap_directory_bytes > DIRECTORY_BYTES_MAX ||
        header->bitmap_directory_offset % check->cluster_bytes != 0) {
        qcow_check_error(check,
                         "a directory of %" PRIu32 " bitmaps in %" PRIu64 " bytes at %" PRIu64
                         " is not possible",
                         header->bitmap_count, header->bitmap_directory_bytes,
                         header->bitmap_directory_offset);
        return NULL;
    }
    TRY(qcow_check_refer(check, header->bitmap_directory_offset, header->bitmap_directory_bytes, 1,
                         QCOW_OWNER_BITMAP, &is_usable));
    if (!is_usable)
        return NULL;
    size_t len = (size_t)header->bitmap_directory_bytes;
    data = malloc(len);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "directory of bitmaps");
    TRY(host_file_read_bytes(check->file, data, len, header->bitmap_directory_offset));
    struct reader in = reader_of(data, len);
    return check_directory(check, &in);
}
