/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_create.c - see qcow_create.h.
 *
 * The refcount table is made large enough for the image when it is full, so that it seldom has to
 * grow. Parts of tables that are zero stay holes of the host file.
 */
#include "storage/qcow/qcow_create.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_l2_entry.h"
#include "storage/qcow/qcow_layout.h"
#include "storage/qcow/qcow_refcount_width.h"

#define REFCOUNT_BITS_DEFAULT 16u
#define GRANULARITY           4096u /* of what is written; the rest of a table stays a hole */
#define EXTENDED_BITS_MIN     14u   /* a subcluster is a sector at least */

struct creation {
    struct host_file *file;
    const struct qcow_create_options *options;
    struct qcow_geometry geometry;
    struct qcow_layout layout;
    uint64_t cluster_bytes;
};

static struct err *check_version_2(const struct qcow_create_options *options)
{
    if (options->version == 2 &&
        (options->has_extended_l2 || options->has_lazy_refcounts ||
         options->compression != QCOW_COMPRESSION_DEFLATE ||
         (options->refcount_bits != 0 && options->refcount_bits != REFCOUNT_BITS_DEFAULT)))
        return err_new(ERR_INVALID, "version 2 has neither extended L2 entries, lazy refcounts, "
                                    "zstd nor refcounts of other than 16 bits; take version 3");
    return NULL;
}

static struct err *check_options(const struct qcow_create_options *options)
{
    if (options->version != 2 && options->version != 3)
        return err_new(ERR_INVALID, "version %u is neither 2 nor 3", options->version);
    if (options->cluster_bits < QCOW_CLUSTER_BITS_MIN ||
        options->cluster_bits > QCOW_CLUSTER_BITS_MAX)
        return err_new(ERR_INVALID, "clusters of 2^%u bytes are not in 2^9..2^21",
                       options->cluster_bits);
    if (options->has_extended_l2 && options->cluster_bits < EXTENDED_BITS_MIN)
        return err_new(ERR_INVALID,
                       "extended L2 entries need clusters of 16 KiB or more, not of %u bytes",
                       1u << options->cluster_bits);
    if (options->refcount_bits > 64 || (options->refcount_bits & (options->refcount_bits - 1)) != 0)
        return err_new(ERR_INVALID, "refcounts of %u bits: it must be 1, 2, 4, 8, 16, 32 or 64",
                       options->refcount_bits);
    if (options->virtual_bytes % 512 != 0)
        return err_new(ERR_INVALID, "a disk of %llu bytes: it must be whole sectors of 512",
                       (unsigned long long)options->virtual_bytes);
    if (options->backing_name != NULL && options->preallocation != QCOW_PREALLOCATION_OFF)
        return err_new(ERR_INVALID,
                       "preallocated clusters would hide the backing file; take one of the two");
    return check_version_2(options);
}

static enum qcow_reach reach_of(const struct qcow_create_options *options)
{
    if (options->preallocation != QCOW_PREALLOCATION_OFF)
        return QCOW_REACH_DATA;
    return options->is_static && options->virtual_bytes <= QCOW_STATIC_BYTES_MAX ? QCOW_REACH_L2
                                                                                 : QCOW_REACH_L1;
}

static struct err *plan(struct creation *creation)
{
    const struct qcow_create_options *options = creation->options;
    uint32_t refcount_bits =
        options->refcount_bits == 0 ? REFCOUNT_BITS_DEFAULT : options->refcount_bits;
    enum qcow_reach reach = reach_of(options);

    creation->cluster_bytes = (uint64_t)1 << options->cluster_bits;
    creation->geometry = (struct qcow_geometry){
        .virtual_bytes = options->virtual_bytes,
        .cluster_bits = options->cluster_bits,
        .refcount_order = (unsigned)__builtin_ctz(refcount_bits),
        .has_extended_l2 = options->has_extended_l2,
    };
    bool is_possible = qcow_layout_of(&creation->geometry, reach, &creation->layout);
    if (!is_possible && reach == QCOW_REACH_L2)
        is_possible = qcow_layout_of(&creation->geometry, QCOW_REACH_L1, &creation->layout);
    if (!is_possible)
        return err_new(ERR_INVALID,
                       "a disk of %llu bytes is not possible with clusters of %llu bytes; take "
                       "larger ones",
                       (unsigned long long)options->virtual_bytes,
                       (unsigned long long)creation->cluster_bytes);
    return NULL;
}

/* The first `bytes` of a table, rounded up to what is written at once; the caller zeroed those. */
static struct err *write_head(const struct creation *creation, const uint8_t *data, uint64_t bytes,
                              uint64_t cluster)
{
    uint64_t len = MIN(align_up(bytes, GRANULARITY), align_up(bytes, creation->cluster_bytes));

    return host_file_write_bytes(creation->file, data, (size_t)len,
                                 cluster << creation->options->cluster_bits);
}

static struct err *write_counts(const struct creation *creation)
{
    const struct qcow_layout *layout = &creation->layout;
    unsigned order = creation->geometry.refcount_order;
    CLEANUP(cleanup_free) uint8_t *counts = malloc(creation->cluster_bytes);
    if (counts == NULL)
        return err_new(ERR_NO_MEMORY, "refcounts");

    uint64_t left = qcow_layout_end(layout);
    for (uint64_t block = 0; block < layout->blocks && left > 0; block++) {
        uint64_t used = MIN(left, layout->block_counts);
        memset(counts, 0, creation->cluster_bytes);
        for (uint64_t i = 0; i < used; i++)
            qcow_refcount_width_set(counts, i, order, 1);
        TRY(write_head(creation, counts, divide_up(used << order, 8),
                       qcow_layout_blocks(layout) + block));
        left -= used;
    }
    return NULL;
}

/* A table of offsets of `count` clusters from `first` on, each entry with the same flags; behind
 * each entry are `gap` bytes of zeros. */
struct pointers {
    uint64_t count;
    uint64_t first;
    uint64_t flags;
    size_t gap;
};

static struct err *write_pointers(const struct creation *creation, const struct pointers *pointers,
                                  uint64_t cluster)
{
    static const uint8_t zeroes[8];
    uint64_t bytes = pointers->count * (8 + pointers->gap);
    CLEANUP(cleanup_free) uint8_t *table = calloc(1, align_up(bytes, GRANULARITY) + 1);
    if (table == NULL)
        return err_new(ERR_NO_MEMORY, "tables");
    if (bytes == 0)
        return NULL;

    struct writer out = writer_of(table, bytes);
    for (uint64_t i = 0; i < pointers->count; i++) {
        writer_be64(&out,
                    (pointers->first + i) << creation->options->cluster_bits | pointers->flags);
        writer_bytes(&out, zeroes, pointers->gap);
    }
    return write_head(creation, table, bytes, cluster);
}

static struct err *write_l2_tables(const struct creation *creation)
{
    const struct qcow_layout *layout = &creation->layout;

    for (uint64_t i = 0; i < layout->data; i += layout->l2_entries)
        TRY(write_pointers(creation,
                           &(struct pointers){
                               .count = MIN(layout->l2_entries, layout->data - i),
                               .first = qcow_layout_data(layout) + i,
                               .flags = QCOW_ENTRY_COPIED,
                               .gap = creation->options->has_extended_l2 ? 8 : 0,
                           },
                           qcow_layout_l2(layout) + i / layout->l2_entries));
    return NULL;
}

static struct err *write_tables(const struct creation *creation)
{
    const struct qcow_layout *layout = &creation->layout;

    TRY(write_counts(creation));
    TRY(write_pointers(
        creation, &(struct pointers){.count = layout->blocks, .first = qcow_layout_blocks(layout)},
        1));
    TRY(write_pointers(creation,
                       &(struct pointers){.count = layout->l2,
                                          .first = qcow_layout_l2(layout),
                                          .flags = QCOW_ENTRY_COPIED},
                       qcow_layout_l1(layout)));
    return write_l2_tables(creation);
}

static struct err *reserve_data(const struct creation *creation)
{
    const struct qcow_layout *layout = &creation->layout;
    uint64_t offset = qcow_layout_data(layout) << creation->options->cluster_bits;
    uint64_t bytes = layout->data << creation->options->cluster_bits;

    switch (creation->options->preallocation) {
    case QCOW_PREALLOCATION_OFF:
    case QCOW_PREALLOCATION_METADATA: return NULL;
    case QCOW_PREALLOCATION_FALLOC: return host_file_allocate(creation->file, offset, bytes);
    case QCOW_PREALLOCATION_FULL: return host_file_write_zeroes(creation->file, offset, bytes);
    }
    UNREACHABLE();
}

static struct err *set_backing(const struct qcow_create_options *options,
                               struct qcow_header *header)
{
    if (options->backing_name == NULL)
        return NULL;

    size_t name_bytes = strlen(options->backing_name) + 1;
    size_t format_bytes = strlen(options->backing_format) + 1;
    if (name_bytes > sizeof(header->backing_name) || format_bytes > sizeof(header->backing_format))
        return err_new(ERR_INVALID, "the backing file's name '%s' is too long",
                       options->backing_name);
    memcpy(header->backing_name, options->backing_name, name_bytes);
    memcpy(header->backing_format, options->backing_format, format_bytes);
    return NULL;
}

static struct err *build_header(const struct creation *creation, struct qcow_header *out_header)
{
    const struct qcow_create_options *options = creation->options;
    const struct qcow_layout *layout = &creation->layout;
    struct qcow_header header = {
        .version = options->version,
        .cluster_bits = options->cluster_bits,
        .virtual_bytes = options->virtual_bytes,
        .l1_entries = (uint32_t)MAX(layout->l2_tables, (uint64_t)1), /* one is always there */
        .l1_offset = qcow_layout_l1(layout) << options->cluster_bits,
        .refcount_table_offset = creation->cluster_bytes,
        .refcount_table_clusters = (uint32_t)layout->table,
        .refcount_order = creation->geometry.refcount_order,
        .compression = options->compression,
        .compatible = options->has_lazy_refcounts ? QCOW_COMPATIBLE_LAZY_REFCOUNTS : 0,
    };

    if (options->has_extended_l2)
        header.incompatible |= QCOW_INCOMPATIBLE_EXTENDED_L2;
    if (options->compression != QCOW_COMPRESSION_DEFLATE)
        header.incompatible |= QCOW_INCOMPATIBLE_COMPRESSION;
    TRY(set_backing(options, &header));
    *out_header = header;
    return NULL;
}

static struct err *write_image(const struct creation *creation)
{
    struct qcow_header header;
    uint64_t end = qcow_layout_end(&creation->layout);
    CLEANUP(cleanup_free) uint8_t *cluster = malloc(creation->cluster_bytes);
    if (cluster == NULL)
        return err_new(ERR_NO_MEMORY, "header");

    TRY(build_header(creation, &header));
    TRY(qcow_header_build(&header, cluster, creation->cluster_bytes));
    TRY(host_file_truncate(creation->file, end << creation->options->cluster_bits));
    TRY(reserve_data(creation));
    TRY(write_tables(creation));
    /* Last: until then the file is no image. */
    TRY(host_file_write_bytes(creation->file, cluster,
                              (size_t)MIN(creation->cluster_bytes, (uint64_t)GRANULARITY), 0));
    return host_file_sync(creation->file);
}

struct err *qcow_create(struct host_file *file, const struct qcow_create_options *options)
{
    struct creation creation = {.file = file, .options = options};
    struct err *err = check_options(options);

    if (err == NULL)
        err = plan(&creation);
    if (err == NULL)
        err = write_image(&creation);
    return err == NULL ? NULL : err_wrap(err, "create '%s'", file->path);
}
