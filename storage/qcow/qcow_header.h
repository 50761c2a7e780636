/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_header.h - the first cluster of a qcow2 image.
 *
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_HEADER_H
#define STORAGE_QCOW_QCOW_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;

#define QCOW_MAGIC            0x514649fbu
#define QCOW_HEADER_V2_BYTES  72u
#define QCOW_HEADER_V3_BYTES  112u
#define QCOW_CLUSTER_BITS_MIN 9u
#define QCOW_CLUSTER_BITS_MAX 21u

#define QCOW_EXTENDED_L2_CLUSTER_BITS_MIN 14u
#define QCOW_EXTENDED_L2_SUBCLUSTER_BITS  5u /* 32 subclusters in a cluster */

#define QCOW_INCOMPATIBLE_DIRTY       ((uint64_t)1 << 0)
#define QCOW_INCOMPATIBLE_CORRUPT     ((uint64_t)1 << 1)
#define QCOW_INCOMPATIBLE_DATA_FILE   ((uint64_t)1 << 2)
#define QCOW_INCOMPATIBLE_COMPRESSION ((uint64_t)1 << 3)
#define QCOW_INCOMPATIBLE_EXTENDED_L2 ((uint64_t)1 << 4)

#define QCOW_COMPATIBLE_LAZY_REFCOUNTS ((uint64_t)1 << 0)

#define QCOW_AUTOCLEAR_BITMAPS ((uint64_t)1 << 0)

#define QCOW_EXTENSION_END            0x00000000u
#define QCOW_EXTENSION_BACKING_FORMAT 0xe2792acau
#define QCOW_EXTENSION_BITMAPS        0x23852875u
#define QCOW_EXTENSION_FEATURE_NAMES  0x6803f857u

/* Where the fields that change while an image is in use lie: all in the first sector. */
#define QCOW_HEADER_AT_BACKING        8u
#define QCOW_HEADER_AT_SIZE           24u /* size, encryption, L1 table: 24 bytes */
#define QCOW_HEADER_AT_REFCOUNT_TABLE 48u
#define QCOW_HEADER_AT_SNAPSHOTS      60u
#define QCOW_HEADER_AT_INCOMPATIBLE   72u
#define QCOW_HEADER_AT_AUTOCLEAR      88u

/* Where the host offset stands in an entry of an L1 table, an L2 table, or a bitmap's table. */
#define QCOW_OFFSET_MASK 0x00fffffffffffe00u

enum qcow_compression { QCOW_COMPRESSION_DEFLATE = 0, QCOW_COMPRESSION_ZSTD = 1 };

struct qcow_header {
    uint32_t version;
    uint32_t cluster_bits;
    uint64_t virtual_bytes; /* whole sectors */
    uint32_t crypt_method;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t refcount_order; /* a count has 1 << order bits */
    uint32_t header_bytes;
    enum qcow_compression compression;
    bool has_bitmap_extension; /* see qcow_header_has_bitmaps */
    uint32_t bitmap_count;
    uint64_t bitmap_directory_bytes;
    uint64_t bitmap_directory_offset;
    uint64_t backing_offset;
    uint32_t backing_bytes;
    char backing_name[1024]; /* empty: none */
    char backing_format[16]; /* empty: not said */
};

/* `data` is the start of the image: its first cluster, or the whole file if that is shorter.
 * Everything is bounded, and what is not handled is refused by name. */
ERR_RESULT qcow_header_parse(const void *data, size_t len, uint64_t file_bytes,
                             struct qcow_header *out_header);
ERR_RESULT qcow_header_read(struct host_file *file, struct qcow_header *out_header);

static inline bool qcow_header_has_extended_l2(const struct qcow_header *header)
{
    return (header->incompatible & QCOW_INCOMPATIBLE_EXTENDED_L2) != 0;
}

/* Without the autoclear bit the extension means nothing: a program that does not know of bitmaps
 * has written the image since, and where they were there may be anything (qcow2, "Bitmaps
 * extension"). */
static inline bool qcow_header_has_bitmaps(const struct qcow_header *header)
{
    return header->has_bitmap_extension && (header->autoclear & QCOW_AUTOCLEAR_BITMAPS) != 0;
}

/* The guest bytes that one entry of an L1 table stands for, and those that one bit or entry of an
 * L2 table stands for, as powers of two. */
static inline uint32_t qcow_header_l1_reach_bits(const struct qcow_header *header)
{
    return header->cluster_bits * 2 - (qcow_header_has_extended_l2(header) ? 4 : 3);
}

static inline uint32_t qcow_header_subcluster_bits(const struct qcow_header *header)
{
    return header->cluster_bits -
           (qcow_header_has_extended_l2(header) ? QCOW_EXTENDED_L2_SUBCLUSTER_BITS : 0);
}

/* Some images can be read but not written: says which, and what to do. */
ERR_RESULT qcow_header_check_writable(const struct qcow_header *header);

/* Changes one field of 8 bytes at one of the places above, durably. Fields lie in one sector, so a
 * power cut leaves the old value or the new one. */
ERR_RESULT qcow_header_write_field(struct host_file *file, size_t at, uint64_t value);

/* Header, extensions and backing name; the rest of the buffer is zeroed. */
ERR_RESULT qcow_header_build(const struct qcow_header *header, void *out_data, size_t len);

#endif
