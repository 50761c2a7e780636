/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_create.c - see qcow_create.h.
 * Tested by: qcow_oracle_test.c
 *
 *   | header | refcount table ... | refcount blocks ... | L1 table ... |
 *
 * The refcount table is made large enough for the image when it is full, so that it seldom has to
 * grow. Most of it and of the L1 table is a hole.
 */
#include "storage/qcow/qcow_create.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_refcount_width.h"

#define REFCOUNT_ORDER           4u
#define L1_BYTES_MAX             (32 * MIB)
#define REFCOUNT_TABLE_BYTES_MAX (8 * MIB)

/* In clusters, but for per_block: counts in a block. */
struct layout {
    uint64_t per_block;
    uint64_t table;
    uint64_t blocks;
    uint64_t l1;
};

static uint64_t layout_total(const struct layout *layout)
{
    return 1 + layout->table + layout->blocks + layout->l1;
}

static struct layout layout_of(const struct qcow_create_options *options)
{
    uint64_t cluster_bytes = (uint64_t)1 << options->cluster_bits;
    uint64_t clusters = divide_up(options->virtual_bytes, cluster_bytes);
    uint64_t l2_tables = divide_up(clusters, cluster_bytes / 8);
    struct layout layout = {.per_block = cluster_bytes * 8 >> REFCOUNT_ORDER,
                            .l1 = MAX(divide_up(l2_tables * 8, cluster_bytes), (uint64_t)1)};
    uint64_t full_blocks = divide_up(clusters + l2_tables + layout.l1, layout.per_block) + 2;

    layout.table = divide_up(MIN(full_blocks * 8, REFCOUNT_TABLE_BYTES_MAX), cluster_bytes);
    do
        layout.blocks++;
    while (layout_total(&layout) > layout.blocks * layout.per_block);
    return layout;
}

static struct err *write_refcounts(struct host_file *file, const struct layout *layout,
                                   uint32_t cluster_bits)
{
    size_t cluster_bytes = (size_t)1 << cluster_bits;
    uint64_t first_block = 1 + layout->table;
    CLEANUP(cleanup_free) uint8_t *table = calloc(layout->blocks, 8);
    CLEANUP(cleanup_free) uint8_t *counts = malloc(cluster_bytes);
    if (table == NULL || counts == NULL)
        return err_new(ERR_NO_MEMORY, "create '%s'", file->path);

    struct writer out = writer_of(table, layout->blocks * 8);
    for (uint64_t block = 0; block < layout->blocks; block++) {
        uint64_t used = layout_total(layout) - MIN(layout_total(layout), block * layout->per_block);
        memset(counts, 0, cluster_bytes);
        for (uint64_t i = 0; i < MIN(used, layout->per_block); i++)
            qcow_refcount_width_set(counts, i, REFCOUNT_ORDER, 1);
        TRY(host_file_write_bytes(file, counts, cluster_bytes,
                                  (first_block + block) << cluster_bits));
        writer_be64(&out, (first_block + block) << cluster_bits);
    }
    return host_file_write_bytes(file, table, layout->blocks * 8, cluster_bytes);
}

static struct err *build_header(const struct qcow_create_options *options,
                                const struct layout *layout, struct qcow_header *out_header)
{
    uint64_t reach = (uint64_t)1 << (options->cluster_bits * 2 - 3);
    struct qcow_header header = {
        .version = options->version,
        .cluster_bits = options->cluster_bits,
        .virtual_bytes = options->virtual_bytes,
        .l1_entries = (uint32_t)divide_up(options->virtual_bytes, reach),
        .l1_offset = (1 + layout->table + layout->blocks) << options->cluster_bits,
        .refcount_table_offset = (uint64_t)1 << options->cluster_bits,
        .refcount_table_clusters = (uint32_t)layout->table,
        .refcount_order = REFCOUNT_ORDER,
    };

    if (options->backing_name != NULL) {
        size_t name_bytes = strlen(options->backing_name) + 1;
        size_t format_bytes = strlen(options->backing_format) + 1;
        if (name_bytes > sizeof(header.backing_name) ||
            format_bytes > sizeof(header.backing_format))
            return err_new(ERR_INVALID, "the backing file's name '%s' is too long",
                           options->backing_name);
        memcpy(header.backing_name, options->backing_name, name_bytes);
        memcpy(header.backing_format, options->backing_format, format_bytes);
    }
    *out_header = header;
    return NULL;
}

struct err *qcow_create(struct host_file *file, const struct qcow_create_options *options)
{
    struct qcow_header header;

    if (options->virtual_bytes % 512 != 0 || options->virtual_bytes > DISK_BYTES_MAX ||
        options->virtual_bytes >> (options->cluster_bits * 2 - 3) >= L1_BYTES_MAX / 8)
        return err_new(ERR_INVALID, "create '%s': a disk of %llu bytes is not possible", file->path,
                       (unsigned long long)options->virtual_bytes);

    struct layout layout = layout_of(options);
    TRY(build_header(options, &layout, &header));
    size_t cluster_bytes = (size_t)1 << options->cluster_bits;
    CLEANUP(cleanup_free) uint8_t *cluster = malloc(cluster_bytes);
    if (cluster == NULL)
        return err_new(ERR_NO_MEMORY, "create '%s'", file->path);
    TRY(qcow_header_build(&header, cluster, cluster_bytes));
    TRY(host_file_truncate(file, layout_total(&layout) << options->cluster_bits));
    TRY(write_refcounts(file, &layout, options->cluster_bits));
    TRY(host_file_write_bytes(file, cluster, cluster_bytes, 0));
    return host_file_sync(file);
}
