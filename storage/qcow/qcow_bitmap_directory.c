/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_directory.c - see qcow_bitmap_directory.h and qcow_bitmap.h.
 * Tested by: qcow_bitmap_test.c
 */
#include "storage/qcow/qcow_bitmap_directory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"

#define DIRECTORY_BYTES_MAX (64 * MIB)
#define FIXED_BYTES         24u
#define FLAGS_AT            12u
#define FLAGS_KNOWN         7u
#define EXTRA_COMPATIBLE    4u
#define TYPE_DIRTY          1u
#define DATA_BYTES_MAX      (512 * MIB) /* of one */
#define DATA_BYTES_TOTAL    (1 * GIB)   /* of all, in memory */

uint64_t qcow_bitmap_bit_count(uint64_t virtual_bytes, unsigned granularity_bits)
{
    return divide_up(virtual_bytes, (uint64_t)1 << granularity_bits);
}

struct err *qcow_bitmap_check_size(uint64_t virtual_bytes, unsigned granularity_bits)
{
    if (divide_up(qcow_bitmap_bit_count(virtual_bytes, granularity_bits), 8) > DATA_BYTES_MAX)
        return err_new(ERR_INVALID, "bits for so little each would take more than 512 MiB");
    return NULL;
}

static size_t entry_bytes(const struct qcow_bitmap *bitmap)
{
    return (size_t)align_up(FIXED_BYTES + bitmap->extra_bytes + strlen(bitmap->name), 8);
}

static struct err *copy_bytes(struct reader *in, size_t len, uint8_t **out_copy)
{
    const uint8_t *data = reader_take(in, len);
    if (data == NULL)
        return err_new(ERR_INVALID, "the directory is cut short");

    uint8_t *copy = calloc(1, len + 1);
    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "bitmaps");
    memcpy(copy, data, len);
    *out_copy = copy;
    return NULL;
}

static struct err *check_entry(const struct qcow_bitmap *bitmap, size_t name_bytes,
                               uint64_t cluster_bytes)
{
    if (name_bytes == 0 || name_bytes > QCOW_BITMAP_NAME_MAX)
        return err_new(ERR_INVALID, "a name of %zu bytes", name_bytes);
    if (bitmap->table_offset % cluster_bytes != 0 || bitmap->table_offset == 0 ||
        (uint64_t)bitmap->table_entries * cluster_bytes > DATA_BYTES_MAX + cluster_bytes)
        return err_new(ERR_INVALID,
                       "its table of %" PRIu32 " entries at %" PRIu64 " is not possible",
                       bitmap->table_entries, bitmap->table_offset);
    if ((bitmap->flags & ~FLAGS_KNOWN) != 0 || bitmap->type != TYPE_DIRTY ||
        bitmap->granularity_bits < QCOW_BITMAP_GRANULARITY_MIN ||
        bitmap->granularity_bits > QCOW_BITMAP_GRANULARITY_MAX)
        return err_new(ERR_INVALID, "flags 0x%" PRIx32 ", type %u or granularity 2^%u",
                       bitmap->flags, bitmap->type, bitmap->granularity_bits);
    return NULL;
}

static struct err *parse_entry(struct reader *in, uint64_t cluster_bytes,
                               struct qcow_bitmap *bitmap)
{
    bitmap->table_offset = reader_be64(in);
    bitmap->table_entries = reader_be32(in);
    bitmap->flags = reader_be32(in);
    bitmap->type = reader_u8(in);
    bitmap->granularity_bits = reader_u8(in);
    size_t name_bytes = reader_be16(in);
    bitmap->extra_bytes = reader_be32(in);
    if (!reader_ok(in))
        return err_new(ERR_INVALID, "the directory is cut short");
    TRY(check_entry(bitmap, name_bytes, cluster_bytes));
    TRY(copy_bytes(in, bitmap->extra_bytes, &bitmap->extra));
    TRY(copy_bytes(in, name_bytes, (uint8_t **)&bitmap->name));
    if (strlen(bitmap->name) != name_bytes)
        return err_new(ERR_INVALID, "its name holds a zero byte");
    reader_skip(in, MIN(entry_bytes(bitmap) - FIXED_BYTES - bitmap->extra_bytes - name_bytes,
                        reader_left(in)));
    return NULL;
}

static bool can_be_relied_on(const struct qcow_bitmap *bitmap)
{
    return (bitmap->flags & QCOW_BITMAP_IN_USE) == 0 && bitmap->extra_bytes == 0;
}

/* One cluster of bits. qcow2, "Bitmap table": offset 0 with bit 0 says all ones, else all zeros. */
static struct err *load_part(struct host_file *file, uint64_t entry, uint64_t cluster_bytes,
                             uint8_t *out_bits, size_t len)
{
    uint64_t offset = entry & QCOW_OFFSET_MASK;

    if ((entry & ~(QCOW_OFFSET_MASK | 1)) != 0 || offset % cluster_bytes != 0 ||
        (offset != 0 && (entry & 1) != 0))
        return err_new(ERR_INVALID, "its table has the entry 0x%" PRIx64, entry);
    if (offset != 0)
        return host_file_read_bytes(file, out_bits, len, offset);
    memset(out_bits, (entry & 1) != 0 ? 0xff : 0, len);
    return NULL;
}

/* Bits behind the end of the disk are to be zero. */
static void clear_tail(struct qcow_bitmap *bitmap)
{
    if (bitmap->bit_count % 8 != 0)
        bitmap->bits[bitmap->bit_count / 8] &= (uint8_t)((1u << bitmap->bit_count % 8) - 1);
}

static struct err *load_bits(struct host_file *file, uint64_t cluster_bytes,
                             struct qcow_bitmap *bitmap)
{
    uint64_t bytes = divide_up(bitmap->bit_count, 8);
    size_t table_bytes = (size_t)bitmap->table_entries * 8;
    CLEANUP(cleanup_free) uint8_t *table = malloc(table_bytes + 1);

    if (bitmap->table_entries != divide_up(bytes, cluster_bytes))
        return err_new(ERR_INVALID, "its table of %" PRIu32 " entries does not fit the disk",
                       bitmap->table_entries);
    bitmap->bits = malloc(bytes + 1);
    if (table == NULL || bitmap->bits == NULL)
        return err_new(ERR_NO_MEMORY, "bitmap");
    TRY(host_file_read_bytes(file, table, table_bytes, bitmap->table_offset));
    struct reader in = reader_of(table, table_bytes);
    for (uint64_t at = 0; at < bytes; at += cluster_bytes)
        TRY(load_part(file, reader_be64(&in), cluster_bytes, bitmap->bits + at,
                      (size_t)MIN(cluster_bytes, bytes - at)));
    clear_tail(bitmap);
    return NULL;
}

static struct err *load_entries(struct host_file *file, const struct qcow_header *header,
                                const uint8_t *data, struct qcow_bitmap_set *set)
{
    uint64_t cluster_bytes = (uint64_t)1 << header->cluster_bits, total = 0;
    struct reader in = reader_of(data, (size_t)header->bitmap_directory_bytes);

    while (set->count < header->bitmap_count) {
        struct qcow_bitmap *bitmap = &set->list[set->count++];
        bitmap->flags_at = header->bitmap_directory_offset + (uint64_t)(in.at - data) + FLAGS_AT;
        TRY(parse_entry(&in, cluster_bytes, bitmap));
        bitmap->bit_count = qcow_bitmap_bit_count(set->virtual_bytes, bitmap->granularity_bits);
        if (!can_be_relied_on(bitmap))
            continue;
        total += divide_up(bitmap->bit_count, 8);
        if (total > DATA_BYTES_TOTAL)
            return err_new(ERR_INVALID, "the bitmaps are larger than 1 GiB");
        TRY(load_bits(file, cluster_bytes, bitmap));
    }
    return NULL;
}

static struct err *check_place(const struct qcow_header *header, uint64_t file_bytes)
{
    if (header->bitmap_count > QCOW_BITMAPS_MAX ||
        header->bitmap_directory_bytes > DIRECTORY_BYTES_MAX ||
        header->bitmap_directory_offset % ((uint64_t)1 << header->cluster_bits) != 0 ||
        !range_is_within(header->bitmap_directory_offset, header->bitmap_directory_bytes,
                         file_bytes))
        return err_new(ERR_INVALID,
                       "a directory of %" PRIu32 " bitmaps in %" PRIu64 " bytes at %" PRIu64
                       " is not possible",
                       header->bitmap_count, header->bitmap_directory_bytes,
                       header->bitmap_directory_offset);
    return NULL;
}

static struct err *load(struct host_file *file, const struct qcow_header *header,
                        struct qcow_bitmap_set *set)
{
    uint64_t file_bytes;

    TRY(host_file_size(file, &file_bytes));
    TRY(check_place(header, file_bytes));
    size_t len = (size_t)header->bitmap_directory_bytes;
    CLEANUP(cleanup_free) uint8_t *data = malloc(len + 1);
    set->list = calloc((size_t)header->bitmap_count + 1, sizeof(*set->list));
    if (data == NULL || set->list == NULL)
        return err_new(ERR_NO_MEMORY, "bitmaps");
    TRY(host_file_read_bytes(file, data, len, header->bitmap_directory_offset));
    return load_entries(file, header, data, set);
}

struct err *qcow_bitmap_set_load(struct host_file *file, const struct qcow_header *header,
                                 struct qcow_bitmap_set *out_set)
{
    struct qcow_bitmap_set set = {.virtual_bytes = header->virtual_bytes};

    if (qcow_header_has_bitmaps(header)) {
        struct err *err = load(file, header, &set);
        if (err != NULL) {
            err = err_wrap(err, "bitmap %" PRIu32 " of '%s'", set.count, file->path);
            qcow_bitmap_set_finish(&set);
            return err;
        }
    }
    *out_set = set;
    return NULL;
}

void qcow_bitmap_set_finish(struct qcow_bitmap_set *set)
{
    for (uint32_t i = 0; set->list != NULL && i < set->count; i++) {
        free(set->list[i].name);
        free(set->list[i].bits);
        free(set->list[i].extra);
    }
    free(set->list);
    *set = (struct qcow_bitmap_set){.list = NULL};
}

static void build_entry(struct writer *out, const struct qcow_bitmap *bitmap)
{
    static const uint8_t padding[8];
    size_t name_bytes = strlen(bitmap->name);

    writer_be64(out, bitmap->table_offset);
    writer_be32(out, bitmap->table_entries);
    writer_be32(out, bitmap->flags);
    writer_u8(out, bitmap->type);
    writer_u8(out, bitmap->granularity_bits);
    writer_be16(out, (uint16_t)name_bytes);
    writer_be32(out, bitmap->extra_bytes);
    writer_bytes(out, bitmap->extra, bitmap->extra_bytes);
    writer_bytes(out, bitmap->name, name_bytes);
    writer_bytes(out, padding,
                 entry_bytes(bitmap) - FIXED_BYTES - bitmap->extra_bytes - name_bytes);
}

struct err *qcow_bitmap_directory_build(const struct qcow_bitmap_set *set, uint8_t **out_data,
                                        size_t *out_len)
{
    size_t len = 0;

    for (uint32_t i = 0; i < set->count; i++)
        len += entry_bytes(&set->list[i]);
    if (set->count > QCOW_BITMAPS_MAX || len > DIRECTORY_BYTES_MAX)
        return err_new(ERR_STATE, "the image has no room for another bitmap");
    uint8_t *data = calloc(1, len + 1);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "bitmaps");

    struct writer out = writer_of(data, len);
    for (uint32_t i = 0; i < set->count; i++)
        build_entry(&out, &set->list[i]);
    *out_data = data;
    *out_len = len;
    return NULL;
}
