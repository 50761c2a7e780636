/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_refcounts.c - see qcow_refcounts.h.
 */
#include "storage/qcow/qcow_refcounts.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_refcount_width.h"
#include "storage/qcow/qcow_write_list.h"

#define TABLE_BYTES_MAX   (8 * MIB)
#define TABLE_ENTRY_MASK  0xfffffffffffffe00u
#define WRITE_GRANULARITY 4096u

/* A range of bytes of a block; empty when from == to. */
struct span {
    uint32_t from;
    uint32_t to;
};

struct qcow_refblock {
    struct qcow_refblock *next_changed;
    bool is_changed; /* on the list */
    bool is_recent;  /* used since the clock hand last passed */
    uint64_t offset;
    struct span dirty;    /* changed since the last capture */
    struct span flushing; /* captured, not settled */
    uint8_t counts[];
};

static struct span span_union(struct span a, struct span b)
{
    if (a.from == a.to)
        return b;
    if (b.from == b.to)
        return a;
    return (struct span){MIN(a.from, b.from), MAX(a.to, b.to)};
}

static uint64_t cluster_bytes_of(const struct qcow_refcounts *refcounts)
{
    return (uint64_t)1 << refcounts->cluster_bits;
}

static uint64_t block_index(const struct qcow_refcounts *refcounts, uint64_t cluster)
{
    return cluster >> refcounts->per_block_bits;
}

static uint64_t index_in_block(const struct qcow_refcounts *refcounts, uint64_t cluster)
{
    return cluster & (((uint64_t)1 << refcounts->per_block_bits) - 1);
}

static struct err *block_new(const struct qcow_refcounts *refcounts, uint64_t offset,
                             struct qcow_refblock **out_block)
{
    struct qcow_refblock *block = calloc(1, sizeof(*block) + cluster_bytes_of(refcounts));
    if (block == NULL)
        return err_new(ERR_NO_MEMORY, "refcounts of '%s'", refcounts->file->path);

    block->offset = offset;
    *out_block = block;
    return NULL;
}

static size_t blocks_max(const struct qcow_refcounts *refcounts)
{
    return MAX(QCOW_REFCOUNTS_BYTES_MAX >> refcounts->cluster_bits, 4u);
}

/* Twice around finds one, if there is any that has not changed. */
static bool drop_one(struct qcow_refcounts *refcounts)
{
    for (uint64_t looks = 0; looks < refcounts->table_entries * 2; looks++) {
        uint64_t index = refcounts->hand;
        struct qcow_refblock *block = refcounts->blocks[index];
        refcounts->hand = (index + 1) % refcounts->table_entries;
        if (block == NULL || block->is_changed)
            continue;
        if (!block->is_recent) {
            free(block);
            refcounts->blocks[index] = NULL;
            refcounts->block_count--;
            return true;
        }
        block->is_recent = false;
    }
    return false;
}

/* Leaves room for so many more. */
static void trim(struct qcow_refcounts *refcounts, size_t more)
{
    while (refcounts->block_count + more > refcounts->changed_count + blocks_max(refcounts) &&
           drop_one(refcounts))
        continue;
}

static void keep(struct qcow_refcounts *refcounts, uint64_t index, struct qcow_refblock *block)
{
    trim(refcounts, 1);
    refcounts->blocks[index] = block;
    refcounts->block_count++;
}

/* Valid until another one is asked for, unless it has changed. */
static struct err *block_of(struct qcow_refcounts *refcounts, uint64_t cluster,
                            struct qcow_refblock **out_block)
{
    uint64_t index = block_index(refcounts, cluster);

    if (refcounts->blocks[index] == NULL) {
        CLEANUP(cleanup_free) struct qcow_refblock *block = NULL;
        TRY(block_new(refcounts, refcounts->table[index], &block));
        TRY(host_file_read_bytes(refcounts->file, block->counts, cluster_bytes_of(refcounts),
                                 block->offset));
        keep(refcounts, index, TAKE_PTR(block));
    }
    refcounts->blocks[index]->is_recent = true;
    *out_block = refcounts->blocks[index];
    return NULL;
}

bool qcow_refcounts_covers(const struct qcow_refcounts *refcounts, uint64_t cluster)
{
    uint64_t index = block_index(refcounts, cluster);

    return index < refcounts->table_entries && refcounts->table[index] != 0;
}

bool qcow_refcounts_is_loaded(const struct qcow_refcounts *refcounts, uint64_t cluster)
{
    return !qcow_refcounts_covers(refcounts, cluster) ||
           refcounts->blocks[block_index(refcounts, cluster)] != NULL;
}

struct err *qcow_refcounts_get(struct qcow_refcounts *refcounts, uint64_t cluster,
                               uint64_t *out_count)
{
    struct qcow_refblock *block;

    if (!qcow_refcounts_covers(refcounts, cluster)) {
        *out_count = 0;
        return NULL;
    }
    TRY(block_of(refcounts, cluster, &block));
    *out_count = qcow_refcount_width_get(block->counts, index_in_block(refcounts, cluster),
                                         refcounts->order);
    return NULL;
}

/* Whole pages are written: they cost the host the same, and adjacent counts usually follow. */
static void block_mark(const struct qcow_refcounts *refcounts, struct qcow_refblock *block,
                       uint64_t index)
{
    uint32_t byte = (uint32_t)((index << refcounts->order) / 8);
    uint32_t step = (uint32_t)MIN(WRITE_GRANULARITY, cluster_bytes_of(refcounts));
    uint32_t from = (uint32_t)align_down(byte, step);

    block->dirty = span_union(block->dirty, (struct span){from, from + step});
}

struct err *qcow_refcounts_set(struct qcow_refcounts *refcounts, uint64_t cluster, uint64_t count)
{
    struct qcow_refblock *block;
    uint64_t index = index_in_block(refcounts, cluster);

    ASSERT(qcow_refcounts_covers(refcounts, cluster));
    TRY(block_of(refcounts, cluster, &block));
    qcow_refcount_width_set(block->counts, index, refcounts->order, count);
    block_mark(refcounts, block, index);
    if (!block->is_changed) {
        block->is_changed = true;
        block->next_changed = refcounts->changed;
        refcounts->changed = block;
        refcounts->changed_count++;
    }
    return NULL;
}

bool qcow_refcounts_wants_flush(const struct qcow_refcounts *refcounts)
{
    return refcounts->changed_count > blocks_max(refcounts);
}

/* qcow2, "Refcount table": an entry must not be there before its block is, with its own count. */
static struct err *cover_one(struct qcow_refcounts *refcounts, uint64_t cluster)
{
    uint64_t index = block_index(refcounts, cluster);
    CLEANUP(cleanup_free) struct qcow_refblock *block = NULL;
    uint8_t entry[8];
    struct writer out = writer_of(entry, sizeof(entry));

    TRY(block_new(refcounts, cluster << refcounts->cluster_bits, &block));
    qcow_refcount_width_set(block->counts, index_in_block(refcounts, cluster), refcounts->order, 1);
    TRY(host_file_write_bytes(refcounts->file, block->counts, cluster_bytes_of(refcounts),
                              block->offset));
    TRY(host_file_sync(refcounts->file));
    writer_be64(&out, block->offset);
    TRY(host_file_write_bytes(refcounts->file, entry, sizeof(entry),
                              refcounts->table_offset + index * 8));
    refcounts->table[index] = block->offset;
    keep(refcounts, index, TAKE_PTR(block));
    return NULL;
}

/* Where a larger table and the blocks that describe it go: blocks first, from `cluster` on. */
struct growth {
    uint64_t cluster;
    uint64_t block_count;
    uint64_t table_clusters;
    uint64_t table_entries;
};

static struct err *growth_plan(const struct qcow_refcounts *refcounts, uint64_t cluster,
                               struct growth *out_growth)
{
    uint64_t entries_per_cluster = cluster_bytes_of(refcounts) / 8;
    struct growth growth = {.cluster = cluster, .block_count = 1};
    uint64_t first = block_index(refcounts, cluster), last = first;

    for (;;) {
        growth.table_entries =
            align_up(MAX(refcounts->table_entries * 2, last + 1), entries_per_cluster);
        growth.table_clusters = growth.table_entries / entries_per_cluster;
        growth.block_count = last - first + 1;
        uint64_t end = cluster + growth.block_count + growth.table_clusters - 1;
        if (block_index(refcounts, end) <= last)
            break;
        last = block_index(refcounts, end);
    }
    if (growth.table_entries * 8 > TABLE_BYTES_MAX)
        return err_new(ERR_IO,
                       "image '%s' can not grow any more with clusters of %llu bytes; convert it "
                       "to larger ones",
                       refcounts->file->path, (unsigned long long)cluster_bytes_of(refcounts));
    *out_growth = growth;
    return NULL;
}

static struct err *write_table(const struct qcow_refcounts *refcounts, const uint64_t *table,
                               uint64_t entries, uint64_t offset)
{
    CLEANUP(cleanup_free) uint8_t *bytes = malloc(entries * 8);
    if (bytes == NULL)
        return err_new(ERR_NO_MEMORY, "refcount table of '%s'", refcounts->file->path);

    struct writer out = writer_of(bytes, entries * 8);
    for (uint64_t i = 0; i < entries; i++)
        writer_be64(&out, table[i]);
    return host_file_write_bytes(refcounts->file, bytes, entries * 8, offset);
}

static struct err *build_blocks(struct qcow_refcounts *grown, const struct growth *growth)
{
    uint64_t first = block_index(grown, growth->cluster);

    for (uint64_t i = 0; i < growth->block_count; i++) {
        uint64_t offset = (growth->cluster + i) << grown->cluster_bits;
        TRY(block_new(grown, offset, &grown->blocks[first + i]));
        grown->table[first + i] = offset;
    }
    for (uint64_t i = 0; i < growth->block_count + growth->table_clusters; i++) {
        uint64_t cluster = growth->cluster + i;
        struct qcow_refblock *block = grown->blocks[block_index(grown, cluster)];
        qcow_refcount_width_set(block->counts, index_in_block(grown, cluster), grown->order, 1);
    }
    for (uint64_t i = 0; i < growth->block_count; i++)
        TRY(host_file_write_bytes(grown->file, grown->blocks[first + i]->counts,
                                  cluster_bytes_of(grown), grown->table[first + i]));
    return NULL;
}

/* One write inside sector 0 switches from the old table to the new one. Whether a failed write
 * did so is unknown, and then neither table may be relied on. */
static struct err *switch_table(const struct qcow_refcounts *grown, const struct growth *growth)
{
    uint8_t fields[12];
    struct writer out = writer_of(fields, sizeof(fields));

    TRY(write_table(grown, grown->table, grown->table_entries, grown->table_offset));
    TRY(host_file_sync(grown->file));
    writer_be64(&out, grown->table_offset);
    writer_be32(&out, (uint32_t)growth->table_clusters);
    struct err *err =
        host_file_write_bytes(grown->file, fields, sizeof(fields), QCOW_HEADER_AT_REFCOUNT_TABLE);
    if (err != NULL) {
        host_file_give_up(grown->file);
        return err;
    }
    return host_file_sync(grown->file);
}

static struct err *grow_into(struct qcow_refcounts *grown, const struct growth *growth)
{
    grown->table = calloc(growth->table_entries, sizeof(*grown->table));
    grown->blocks = calloc(growth->table_entries, sizeof(struct qcow_refblock *));
    if (grown->table == NULL || grown->blocks == NULL)
        return err_new(ERR_NO_MEMORY, "refcount table of '%s'", grown->file->path);
    return NULL;
}

static struct err *grow(struct qcow_refcounts *refcounts, uint64_t cluster, uint64_t *out_used)
{
    struct growth growth;
    struct qcow_refcounts grown = *refcounts;
    uint64_t old_cluster = refcounts->table_offset >> refcounts->cluster_bits;
    uint64_t old_clusters = divide_up(refcounts->table_entries * 8, cluster_bytes_of(refcounts));

    TRY(growth_plan(refcounts, cluster, &growth));
    struct err *err = grow_into(&grown, &growth);
    if (err == NULL) {
        size_t old_count = refcounts->table_entries;
        memcpy(grown.table, refcounts->table, old_count * sizeof(*grown.table));
        grown.table_entries = growth.table_entries;
        grown.table_offset = (cluster + growth.block_count) << grown.cluster_bits;
        err = build_blocks(&grown, &growth);
    }
    if (err == NULL)
        err = switch_table(&grown, &growth);
    if (err != NULL) {
        qcow_refcounts_finish(&grown);
        return err;
    }

    memcpy(grown.blocks, refcounts->blocks,
           refcounts->table_entries * sizeof(struct qcow_refblock *));
    grown.block_count += growth.block_count;
    free(refcounts->table);
    free(refcounts->blocks);
    *refcounts = grown;
    *out_used = growth.block_count + growth.table_clusters;
    /* The old table is unreachable for good; failing to say so only leaks it. */
    for (uint64_t i = 0; i < old_clusters; i++)
        err_free(qcow_refcounts_set(refcounts, old_cluster + i, 0));
    return NULL;
}

struct err *qcow_refcounts_cover(struct qcow_refcounts *refcounts, uint64_t cluster,
                                 uint64_t *out_used)
{
    if (block_index(refcounts, cluster) >= refcounts->table_entries)
        return grow(refcounts, cluster, out_used);

    TRY(cover_one(refcounts, cluster));
    *out_used = 1;
    return NULL;
}

struct err *qcow_refcounts_capture(struct qcow_refcounts *refcounts, struct qcow_write_list *list)
{
    for (struct qcow_refblock *block = refcounts->changed; block != NULL;
         block = block->next_changed) {
        struct span span = block->dirty;
        uint8_t *copy = qcow_write_list_add(list, block->offset + span.from, span.to - span.from);
        if (copy == NULL)
            return err_new(ERR_NO_MEMORY, "flush '%s'", refcounts->file->path);
        memcpy(copy, block->counts + span.from, span.to - span.from);
        block->flushing = span;
        block->dirty = (struct span){0, 0};
    }
    return NULL;
}

void qcow_refcounts_settle(struct qcow_refcounts *refcounts, bool is_durable)
{
    struct qcow_refblock **link = &refcounts->changed;

    while (*link != NULL) {
        struct qcow_refblock *block = *link;
        if (!is_durable)
            block->dirty = span_union(block->dirty, block->flushing);
        block->flushing = (struct span){0, 0};
        if (block->dirty.from == block->dirty.to) {
            block->is_changed = false;
            refcounts->changed_count--;
            *link = block->next_changed;
        } else {
            link = &block->next_changed;
        }
    }
    trim(refcounts, 0);
}

static struct err *load_table(struct qcow_refcounts *refcounts)
{
    size_t bytes = refcounts->table_entries * 8;
    CLEANUP(cleanup_free) uint8_t *data = malloc(bytes);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "refcount table of '%s'", refcounts->file->path);

    uint64_t file_bytes;
    TRY(host_file_size(refcounts->file, &file_bytes));
    TRY(host_file_read_bytes(refcounts->file, data, bytes, refcounts->table_offset));
    struct reader in = reader_of(data, bytes);
    for (uint64_t i = 0; i < refcounts->table_entries; i++) {
        uint64_t entry = reader_be64(&in);
        if ((entry & ~TABLE_ENTRY_MASK) != 0 || entry % cluster_bytes_of(refcounts) != 0 ||
            entry >= file_bytes)
            return err_new(ERR_INVALID,
                           "refcount table entry %llu is malformed; repair the image with "
                           "'vm-disk check -r all'",
                           (unsigned long long)i);
        refcounts->table[i] = entry;
    }
    return NULL;
}

struct err *qcow_refcounts_load(struct qcow_refcounts *refcounts, struct host_file *file,
                                const struct qcow_header *header)
{
    struct qcow_refcounts loaded = {
        .file = file,
        .cluster_bits = header->cluster_bits,
        .order = header->refcount_order,
        .per_block_bits = header->cluster_bits + 3 - header->refcount_order,
        .table_offset = header->refcount_table_offset,
        .table_entries = ((uint64_t)header->refcount_table_clusters << header->cluster_bits) / 8,
    };

    loaded.table = calloc(loaded.table_entries, sizeof(*loaded.table));
    loaded.blocks = calloc(loaded.table_entries, sizeof(struct qcow_refblock *));
    struct err *err = loaded.table == NULL || loaded.blocks == NULL
                          ? err_new(ERR_NO_MEMORY, "refcount table of '%s'", file->path)
                          : load_table(&loaded);
    if (err != NULL) {
        qcow_refcounts_finish(&loaded);
        return err;
    }
    *refcounts = loaded;
    return NULL;
}

void qcow_refcounts_finish(struct qcow_refcounts *refcounts)
{
    for (uint64_t i = 0; refcounts->blocks != NULL && i < refcounts->table_entries; i++)
        free(refcounts->blocks[i]);
    free(refcounts->blocks);
    free(refcounts->table);
}
