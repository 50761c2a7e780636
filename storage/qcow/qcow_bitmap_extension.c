/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_extension.c - see qcow_bitmap_extension.h. Tested by: qcow_bitmap_test.c
 */
#include "storage/qcow/qcow_bitmap_extension.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"

#define SECTOR_BYTES 512u
#define HEAD_BYTES   8u  /* type and length */
#define DATA_BYTES   24u /* of ours */

struct extensions {
    struct qcow_header header;
    uint64_t cluster_bytes;
    uint64_t ours_at; /* of its head; 0: there is none */
    bool is_ours_last;
    uint64_t end_at; /* of the head that ends the list; 0: it has none */
};

/* The header has been parsed, so lengths fit. */
static struct err *find(struct host_file *file, struct extensions *out_extensions)
{
    struct extensions found = {.ours_at = 0};

    TRY(qcow_header_read(file, &found.header));
    found.cluster_bytes = (uint64_t)1 << found.header.cluster_bits;
    CLEANUP(cleanup_free) uint8_t *data = malloc(found.cluster_bytes);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "header");
    TRY(host_file_read_bytes(file, data, found.cluster_bytes, 0));

    uint64_t limit =
        found.header.backing_offset != 0 ? found.header.backing_offset : found.cluster_bytes;
    uint64_t at = found.header.header_bytes;
    while (at <= limit && limit - at >= HEAD_BYTES) {
        struct reader in = reader_of(data + at, HEAD_BYTES);
        uint32_t type = reader_be32(&in), len = reader_be32(&in);
        if (type == QCOW_EXTENSION_END) {
            found.end_at = at;
            break;
        }
        found.is_ours_last = type == QCOW_EXTENSION_BITMAPS;
        if (found.is_ours_last)
            found.ours_at = at;
        at += HEAD_BYTES + align_up(len, 8);
    }
    *out_extensions = found;
    return NULL;
}

/* Where the backing file's name goes so that ours fits; 0: it may stay where it is. */
static uint64_t name_target(const struct extensions *found)
{
    const struct qcow_header *header = &found->header;
    uint64_t behind = found->end_at + HEAD_BYTES + DATA_BYTES + HEAD_BYTES;

    if (header->backing_offset == 0 || header->backing_offset >= behind)
        return 0;
    return align_up(MAX(header->backing_offset + header->backing_bytes, behind), 8);
}

static struct err *check_room(const struct extensions *found)
{
    uint64_t behind = found->end_at + HEAD_BYTES + DATA_BYTES + HEAD_BYTES;
    uint64_t name_at = name_target(found);

    if (found->ours_at != 0)
        return NULL;
    if (found->header.version < 3)
        return err_new(ERR_INCOMPATIBLE, "images of version 2 can not have bitmaps; copy it to one "
                                         "of version 3 ('vm-disk convert')");
    if (found->end_at == 0 || behind > found->cluster_bytes ||
        name_at + found->header.backing_bytes > found->cluster_bytes)
        return err_new(ERR_STATE, "its header has no room for bitmaps; copy the image to one with "
                                  "larger clusters ('vm-disk convert')");
    return NULL;
}

struct err *qcow_bitmap_extension_check_room(struct host_file *file)
{
    struct extensions found;

    TRY(find(file, &found));
    return check_room(&found);
}

static struct err *write_durably(struct host_file *file, const void *data, size_t len,
                                 uint64_t offset)
{
    TRY(host_file_write_bytes(file, data, len, offset));
    return host_file_sync(file);
}

static void build_data(struct writer *out, const struct qcow_bitmap_place *place)
{
    writer_be32(out, place->count);
    writer_be32(out, 0);
    writer_be64(out, place->directory_bytes);
    writer_be64(out, place->directory_offset);
}

/* The list still ends before ours until its head, which is inside one sector, is written. */
static struct err *insert(struct host_file *file, const struct extensions *found,
                          const struct qcow_bitmap_place *place)
{
    const struct qcow_header *header = &found->header;
    uint8_t data[DATA_BYTES + HEAD_BYTES] = {0};
    struct writer out = writer_of(data, sizeof(data));
    uint64_t name_at = name_target(found);

    TRY(check_room(found));
    if (name_at != 0) {
        TRY(write_durably(file, header->backing_name, header->backing_bytes, name_at));
        TRY(qcow_header_write_field(file, QCOW_HEADER_AT_BACKING, name_at));
    }
    build_data(&out, place);
    TRY(write_durably(file, data, sizeof(data), found->end_at + HEAD_BYTES));
    return qcow_header_write_field(file, found->end_at,
                                   (uint64_t)QCOW_EXTENSION_BITMAPS << 32 | DATA_BYTES);
}

static struct err *set_trusted(struct host_file *file, const struct qcow_header *header,
                               bool is_trusted)
{
    uint64_t others = header->autoclear & ~QCOW_AUTOCLEAR_BITMAPS;

    return qcow_header_write_field(file, QCOW_HEADER_AT_AUTOCLEAR,
                                   others | (is_trusted ? QCOW_AUTOCLEAR_BITMAPS : 0));
}

/* An extension between others stays where it is; without the bit it means nothing. */
static struct err *withdraw(struct host_file *file, const struct extensions *found)
{
    TRY(set_trusted(file, &found->header, false));
    return found->is_ours_last ? qcow_header_write_field(file, found->ours_at, 0) : NULL;
}

struct err *qcow_bitmap_extension_publish(struct host_file *file,
                                          const struct qcow_bitmap_place *place)
{
    struct extensions found;
    uint8_t data[DATA_BYTES];
    struct writer out = writer_of(data, sizeof(data));

    TRY(find(file, &found));
    TRY(host_file_sync(file));
    if (place->count == 0)
        return withdraw(file, &found);

    build_data(&out, place);
    uint64_t at = found.ours_at + HEAD_BYTES;
    bool is_trusted = (found.header.autoclear & QCOW_AUTOCLEAR_BITMAPS) != 0;
    bool is_atomic = at / SECTOR_BYTES == (at + DATA_BYTES - 1) / SECTOR_BYTES;
    if (found.ours_at != 0 && is_trusted && is_atomic)
        return write_durably(file, data, sizeof(data), at);
    if (is_trusted)
        TRY(set_trusted(file, &found.header, false));
    if (found.ours_at == 0)
        TRY(insert(file, &found, place));
    else
        TRY(write_durably(file, data, sizeof(data), at));
    return set_trusted(file, &found.header, true);
}
