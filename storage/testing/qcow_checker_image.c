/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker_image.c - header, extensions, counts and L2 entries for the checker.
 * Tested by: qcow_checker_test.c
 */
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/testing/qcow_checker_internal.h"

#define INCOMPATIBLE_KNOWN ((uint64_t)0x1f)
#define INCOMPATIBLE_FILE  ((uint64_t)1 << 2)
#define INCOMPATIBLE_TYPE  ((uint64_t)1 << 3)
#define INCOMPATIBLE_L2    ((uint64_t)1 << 4)
#define EXTENSION_BITMAPS  0x23852875u
#define EXTENSION_CRYPT    0x0537be77u

uint64_t checked_number(const struct checked_image *image, uint64_t offset, unsigned bytes)
{
    uint64_t value = 0;

    if (offset <= image->len && bytes <= image->len - offset) {
        for (unsigned i = 0; i < bytes; i++)
            value = value << 8 | image->bytes[offset + i];
        return value;
    }
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 |
                (offset < image->len && i < image->len - offset ? image->bytes[offset + i] : 0);
    return value;
}

bool checked_is_cluster_start(const struct checked_image *image, uint64_t offset)
{
    return offset % image->cluster_bytes == 0 &&
           offset >> image->cluster_bits < image->cluster_count;
}

static const char *check_sizes(const struct checked_image *image)
{
    uint64_t reach = image->cluster_bytes * checked_entries_per_table(image);
    uint64_t mask = image->cluster_bytes - 1;

    if ((uint64_t)image->l1_entries * 8 > 32 * MIB)
        return "the L1 table is too large";
    if (image->virtual_bytes > INT64_MAX ||
        image->l1_entries < divide_up(image->virtual_bytes, reach))
        return "the L1 table is too small";
    if ((image->l1_offset & mask) != 0 || image->l1_offset > INT64_MAX - 32 * MIB)
        return "the L1 table is not aligned";
    if ((image->table_offset & mask) != 0 || image->table_offset > INT64_MAX - 8 * MIB)
        return "the refcount table is not aligned";
    if (image->table_bytes == 0 || image->table_bytes > 8 * MIB)
        return "the refcount table is empty or too large";
    if (image->snapshot_count > 65536)
        return "too many snapshots";
    if ((image->snapshots_offset & mask) != 0 || image->snapshots_offset > INT64_MAX - 64 * MIB)
        return "the snapshot table is not aligned";
    return NULL;
}

/* Gives the end of the extensions' area. */
static const char *check_backing(const struct checked_image *image, uint64_t *out_end)
{
    uint64_t offset = checked_number(image, 8, 8), bytes = checked_number(image, 16, 4);

    *out_end = image->cluster_bytes;
    if (offset == 0)
        return NULL;
    if (offset > image->cluster_bytes || bytes > MIN((uint64_t)1023, image->cluster_bytes - offset))
        return "the backing file's name lies outside the first cluster";
    *out_end = offset;
    return NULL;
}

static const char *parse_extensions(struct checked_image *image, uint64_t at, uint64_t end)
{
    while (at < end) {
        if (end - at < 8)
            return NULL;
        uint64_t type = checked_number(image, at, 4), bytes = checked_number(image, at + 4, 4);
        at += 8;
        if (type == 0)
            return NULL;
        if (bytes > end - at)
            return "a header extension does not fit";
        if (type == EXTENSION_BITMAPS) {
            image->has_bitmaps = true;
            image->bitmap_count = checked_number(image, at, 4);
            image->bitmaps_bytes = checked_number(image, at + 8, 8);
            image->bitmaps_offset = checked_number(image, at + 16, 8);
        }
        if (type == EXTENSION_CRYPT) {
            image->crypt_offset = checked_number(image, at, 8);
            image->crypt_bytes = checked_number(image, at + 8, 8);
        }
        at += align_up(bytes, 8);
    }
    return NULL;
}

static const char *parse_features(struct checked_image *image, uint64_t *out_header_bytes)
{
    image->order = 4;
    *out_header_bytes = 72;
    if (image->version == 2)
        return NULL;

    image->incompatible = checked_number(image, 72, 8);
    image->autoclear = checked_number(image, 88, 8);
    image->order = (uint32_t)checked_number(image, 96, 4);
    uint64_t header_bytes = *out_header_bytes = checked_number(image, 100, 4);
    image->is_extended = (image->incompatible & INCOMPATIBLE_L2) != 0;
    uint64_t type = header_bytes > 104 ? checked_number(image, 104, 1) : 0;
    image->is_zstd = type == 1;

    if ((image->incompatible & ~INCOMPATIBLE_KNOWN) != 0)
        return "an unknown feature is needed";
    if (image->incompatible & INCOMPATIBLE_FILE)
        return "the data lies in another file";
    if (image->order > 6)
        return "counts are too wide";
    if (header_bytes < 104 || header_bytes % 8 != 0 || header_bytes > image->cluster_bytes)
        return "the header's length is malformed";
    if (type > 1 || (type != 0) != ((image->incompatible & INCOMPATIBLE_TYPE) != 0))
        return "the compression type is unknown or contradicts the features";
    if (image->is_extended && image->cluster_bits < 14)
        return "clusters are too small for subclusters";
    return NULL;
}

const char *checked_image_parse(struct checked_image *image, const uint8_t *bytes, size_t len)
{
    uint64_t header_bytes, extensions_end;

    *image = (struct checked_image){.bytes = bytes, .len = len};
    image->version = (uint32_t)checked_number(image, 4, 4);
    image->cluster_bits = (uint32_t)checked_number(image, 20, 4);
    if (checked_number(image, 0, 4) != 0x514649fb || image->version < 2 || image->version > 3)
        return "not qcow2";
    if (image->cluster_bits < 9 || image->cluster_bits > 21)
        return "the cluster size is malformed";
    image->cluster_bytes = (uint64_t)1 << image->cluster_bits;
    image->cluster_count = divide_up(len, image->cluster_bytes);
    image->virtual_bytes = align_down(checked_number(image, 24, 8), 512);
    image->l1_entries = (uint32_t)checked_number(image, 36, 4);
    image->l1_offset = checked_number(image, 40, 8);
    image->table_offset = checked_number(image, 48, 8);
    image->table_bytes = checked_number(image, 56, 4) << image->cluster_bits;
    image->snapshot_count = (uint32_t)checked_number(image, 60, 4);
    image->snapshots_offset = checked_number(image, 64, 8);
    if (checked_number(image, 32, 4) > 2)
        return "the encryption is unknown";

    const char *fault = parse_features(image, &header_bytes);
    if (fault == NULL)
        fault = check_sizes(image);
    if (fault == NULL)
        fault = check_backing(image, &extensions_end);
    if (fault == NULL)
        fault = parse_extensions(image, header_bytes, extensions_end);
    return fault;
}

uint64_t checked_count(const struct checked_image *image, uint64_t cluster)
{
    uint64_t per_block = image->cluster_bytes * 8 >> image->order;
    uint64_t row = cluster / per_block * 8, index = cluster % per_block;

    if (row >= image->table_bytes)
        return 0;
    uint64_t block = checked_number(image, image->table_offset + row, 8) & ~(uint64_t)511;
    if (block == 0 || !checked_is_cluster_start(image, block))
        return 0;
    if (image->order >= 3) {
        unsigned width = 1u << (image->order - 3);
        return checked_number(image, block + index * width, width);
    }
    /* Below a byte: the first in the lowest bits. */
    unsigned width = 1u << image->order;
    uint64_t bit = index * width;
    return checked_number(image, block + bit / 8, 1) >> bit % 8 & ((1u << width) - 1);
}

uint64_t checked_entries_per_table(const struct checked_image *image)
{
    return image->cluster_bytes / (image->is_extended ? 16 : 8);
}

static void decode_compressed(const struct checked_image *image, struct checked_entry *entry,
                              uint64_t bitmap)
{
    unsigned shift = 62 - (image->cluster_bits - 8);
    uint64_t offset = entry->word & (((uint64_t)1 << shift) - 1);
    uint64_t sectors = ((entry->word & ~(CHECKED_COPIED | CHECKED_COMPRESSED)) >> shift) + 1;

    entry->is_compressed = true;
    entry->data_mask = UINT32_MAX;
    if (offset >> 56 != 0)
        entry->fault = "a compressed cluster lies too far away";
    if (entry->word & CHECKED_COPIED)
        entry->fault = "a compressed cluster is marked as copied";
    if (bitmap != 0)
        entry->fault = "a compressed cluster has subclusters";
    entry->host_offset = offset & (((uint64_t)1 << 56) - 1);
    entry->host_bytes = sectors * 512 - offset % 512;
}

struct checked_entry checked_entry_at(const struct checked_image *image, uint64_t table,
                                      uint64_t index)
{
    unsigned entry_bytes = image->is_extended ? 16 : 8;
    uint64_t at = table + index * entry_bytes;
    struct checked_entry entry = {.word = checked_number(image, at, 8)};
    uint64_t bitmap = image->is_extended ? checked_number(image, at + 8, 8) : 0;
    bool may_be_zero = image->version == 3 && !image->is_extended;

    if (entry.word & CHECKED_COMPRESSED) {
        decode_compressed(image, &entry, bitmap);
        return entry;
    }
    entry.host_offset = entry.word & CHECKED_OFFSET_BITS;
    entry.host_bytes = entry.host_offset == 0 ? 0 : image->cluster_bytes;
    if (image->is_extended) {
        entry.data_mask = (uint32_t)bitmap;
        entry.zero_mask = (uint32_t)(bitmap >> 32);
    } else if (entry.word & 1) {
        entry.zero_mask = UINT32_MAX;
    } else if (entry.host_offset != 0) {
        entry.data_mask = UINT32_MAX;
    }

    if ((entry.word & ~(CHECKED_OFFSET_BITS | CHECKED_COPIED | (may_be_zero ? 1 : 0))) != 0)
        entry.fault = "an L2 entry has reserved bits";
    if (entry.host_offset % image->cluster_bytes != 0)
        entry.fault = "an L2 entry is not aligned";
    if (entry.host_offset == 0 && (entry.word & CHECKED_COPIED))
        entry.fault = "an L2 entry is marked as copied and has no cluster";
    if ((entry.data_mask & entry.zero_mask) != 0)
        entry.fault = "a subcluster is both data and zeros";
    if (entry.data_mask != 0 && entry.host_offset == 0)
        entry.fault = "a subcluster has data and no cluster";
    return entry;
}
