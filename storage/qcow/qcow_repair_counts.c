/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_repair_counts.c - see qcow_repair_counts.h.
 * Tested by: qcow_repair_test.c
 */
#include "storage/qcow/qcow_repair_counts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/qcow/qcow_check_internal.h"
#include "storage/qcow/qcow_layout.h"
#include "storage/qcow/qcow_refcount_width.h"

/* The refcount structures to be. */
struct rebuild {
    struct qcow_check *check;
    struct qcow_reference_map old; /* the clusters of the old ones */
    uint64_t block_counts;
    uint64_t first;   /* host cluster of the first new block; the table follows the last */
    uint64_t *blocks; /* owned; which blocks there are, ascending */
    uint64_t block_count;
    uint64_t table_clusters;
};

static uint64_t counts_in_block(const struct qcow_check *check)
{
    return check->cluster_bytes * 8 >> check->header.refcount_order;
}

/* Lowers what is too high in one block; writes it if anything was. */
static struct err *lower_block(struct qcow_check *check, uint64_t index, uint8_t *data,
                               bool *inout_is_changed)
{
    uint64_t first = index * counts_in_block(check);
    uint64_t count = MIN(counts_in_block(check), check->end_cluster - first);
    unsigned order = check->header.refcount_order;
    bool is_changed = false;

    TRY(host_file_read_bytes(check->file, data, check->cluster_bytes,
                             check->refcount_table[index]));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t counted = qcow_reference_map_count(&check->references, first + i);
        if (qcow_refcount_width_get(data, i, order) <= counted)
            continue;
        qcow_refcount_width_set(data, i, order, counted);
        is_changed = true;
    }
    if (!is_changed)
        return NULL;
    *inout_is_changed = true;
    return host_file_write_bytes(check->file, data, check->cluster_bytes,
                                 check->refcount_table[index]);
}

struct err *qcow_repair_counts_lower(struct qcow_check *check)
{
    uint64_t blocks = divide_up(check->end_cluster, counts_in_block(check));
    CLEANUP(cleanup_free) uint8_t *data = malloc(check->cluster_bytes);
    bool is_changed = false;

    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "refcounts");
    for (uint64_t i = 0; i < MIN(blocks, check->refcount_entries); i++)
        if (check->refcount_table[i] != 0)
            TRY(lower_block(check, i, data, &is_changed));
    return is_changed ? host_file_sync(check->file) : NULL;
}

/* Counts that a width can not say. */
static struct err *check_room(const struct qcow_check *check, uint64_t cluster, uint64_t count)
{
    unsigned order = check->header.refcount_order;
    uint64_t most = order == 6 ? UINT64_MAX : ((uint64_t)1 << (1u << order)) - 1;

    if (count <= most)
        return NULL;
    return err_new(ERR_STATE,
                   "the cluster at %" PRIu64 " would be referenced %" PRIu64
                   " times, but counts of %u bits end at %" PRIu64
                   "; delete snapshots ('vm-disk snapshot -d'), or copy the image to one with "
                   "wider counts ('vm-disk convert')",
                   cluster << check->header.cluster_bits, count, 1u << order, most);
}

struct err *qcow_repair_counts_have_room(const struct qcow_check *check)
{
    const struct qcow_reference_chunk **chunks = qcow_reference_map_sorted(&check->references);
    struct err *err = chunks == NULL ? err_new(ERR_NO_MEMORY, "refcounts") : NULL;

    for (size_t i = 0; err == NULL && i < check->references.chunk_count; i++)
        for (uint64_t j = 0; err == NULL && j < QCOW_REFERENCE_CHUNK_CLUSTERS; j++)
            err = check_room(check, (chunks[i]->number << QCOW_REFERENCE_CHUNK_BITS) + j,
                             chunks[i]->counts[j]);
    free((void *)chunks);
    return err;
}

static struct err *raise_block(struct qcow_check *check, uint64_t index, uint8_t *data)
{
    uint64_t first = index * counts_in_block(check);
    unsigned order = check->header.refcount_order;
    bool is_changed = false;

    TRY(host_file_read_bytes(check->file, data, check->cluster_bytes,
                             check->refcount_table[index]));
    for (uint64_t i = 0; i < counts_in_block(check); i++) {
        uint64_t counted = qcow_reference_map_count(&check->references, first + i);
        if (qcow_refcount_width_get(data, i, order) >= counted)
            continue;
        qcow_refcount_width_set(data, i, order, counted);
        is_changed = true;
    }
    return is_changed ? host_file_write_bytes(check->file, data, check->cluster_bytes,
                                              check->refcount_table[index])
                      : NULL;
}

static bool is_block_wanted(const struct qcow_check *check, uint64_t index)
{
    for (uint64_t i = 0; i < counts_in_block(check); i++)
        if (qcow_reference_map_count(&check->references, index * counts_in_block(check) + i) > 0)
            return true;
    return false;
}

static struct err *note_old(struct rebuild *rebuild)
{
    struct qcow_check *check = rebuild->check;
    unsigned bits = check->header.cluster_bits;
    uint64_t table = check->header.refcount_table_offset >> bits;
    enum qcow_owner before;
    bool has_memory = true;

    for (uint32_t i = 0; i < check->header.refcount_table_clusters; i++)
        has_memory = has_memory && qcow_reference_map_add(&rebuild->old, table + i, 1,
                                                          QCOW_OWNER_REFCOUNT_TABLE, &before);
    for (uint64_t i = 0; i < check->refcount_entries; i++)
        if (check->refcount_table[i] != 0)
            has_memory = has_memory &&
                         qcow_reference_map_add(&rebuild->old, check->refcount_table[i] >> bits, 1,
                                                QCOW_OWNER_REFCOUNT_BLOCK, &before);
    return has_memory ? NULL : err_new(ERR_NO_MEMORY, "refcounts");
}

static bool is_new(const struct rebuild *rebuild, uint64_t cluster)
{
    return cluster >= rebuild->first &&
           cluster < rebuild->first + rebuild->block_count + rebuild->table_clusters;
}

/* References without those to the old structures, and with those to the new ones. */
static uint64_t known_count(const struct rebuild *rebuild, uint64_t cluster)
{
    if (is_new(rebuild, cluster))
        return 1;
    uint64_t counted = qcow_reference_map_count(&rebuild->check->references, cluster);
    uint64_t old = qcow_reference_map_count(&rebuild->old, cluster);
    return counted - MIN(old, counted);
}

static struct err *find_count(struct rebuild *rebuild, uint64_t cluster, uint64_t *out_count)
{
    struct qcow_check *check = rebuild->check;
    uint64_t stored = 0;

    if (check->keeps_counts && cluster < check->end_cluster &&
        qcow_reference_map_count(&rebuild->old, cluster) == 0)
        TRY(qcow_check_stored(check, cluster, &stored));
    *out_count = MAX(known_count(rebuild, cluster), stored);
    return NULL;
}

/* Which blocks have to be there for what is in use, ascending. */
static struct err *blocks_in_use(struct rebuild *rebuild)
{
    const struct qcow_reference_map *references = &rebuild->check->references;
    const struct qcow_reference_chunk **chunks = qcow_reference_map_sorted(references);
    uint64_t per_chunk = divide_up(QCOW_REFERENCE_CHUNK_CLUSTERS, rebuild->block_counts) + 1;

    rebuild->blocks = calloc(references->chunk_count * per_chunk + 1, sizeof(uint64_t));
    if (chunks == NULL || rebuild->blocks == NULL) {
        free((void *)chunks);
        return err_new(ERR_NO_MEMORY, "refcounts");
    }
    for (size_t i = 0; i < references->chunk_count; i++) {
        uint64_t cluster = chunks[i]->number << QCOW_REFERENCE_CHUNK_BITS;
        for (uint64_t j = 0; j < QCOW_REFERENCE_CHUNK_CLUSTERS; j++) {
            uint64_t block = (cluster + j) / rebuild->block_counts;
            bool is_known =
                rebuild->block_count > 0 && rebuild->blocks[rebuild->block_count - 1] >= block;
            if (!is_known && known_count(rebuild, cluster + j) > 0)
                rebuild->blocks[rebuild->block_count++] = block;
        }
    }
    free((void *)chunks);
    return NULL;
}

/* And those that there are: they may count what no known entry refers to. */
static struct err *add_old_blocks(struct rebuild *rebuild)
{
    const struct qcow_check *check = rebuild->check;
    uint64_t all = divide_up(check->end_cluster, rebuild->block_counts);
    uint64_t *blocks = calloc(rebuild->block_count + all + 1, sizeof(*blocks));
    uint64_t count = 0, next = 0;
    if (blocks == NULL)
        return err_new(ERR_NO_MEMORY, "refcounts");

    for (uint64_t i = 0; i < all; i++) {
        bool is_wanted = next < rebuild->block_count && rebuild->blocks[next] == i;
        next += is_wanted ? 1 : 0;
        if (is_wanted || (i < check->refcount_entries && check->refcount_table[i] != 0))
            blocks[count++] = i;
    }
    free(rebuild->blocks);
    rebuild->blocks = blocks;
    rebuild->block_count = count;
    return NULL;
}

/* The new structures lie behind the end of the file and count themselves too: more blocks until all
 * of it is covered. */
static struct err *plan(struct rebuild *rebuild)
{
    struct qcow_check *check = rebuild->check;
    uint64_t end, last;

    TRY(blocks_in_use(rebuild));
    if (check->keeps_counts)
        TRY(add_old_blocks(rebuild));
    for (;;) {
        last = rebuild->block_count == 0 ? 0 : rebuild->blocks[rebuild->block_count - 1];
        uint64_t first_new = check->end_cluster / rebuild->block_counts;
        last = MAX(last, first_new);
        rebuild->table_clusters = divide_up((last + 1) * 8, check->cluster_bytes);
        end = check->end_cluster + rebuild->block_count + rebuild->table_clusters;
        uint64_t last_new = (end - 1) / rebuild->block_counts;
        uint64_t have = rebuild->block_count == 0 ? 0 : rebuild->blocks[rebuild->block_count - 1];
        bool is_covered = rebuild->block_count > 0 && have >= last_new;
        if (is_covered)
            return NULL;
        uint64_t next = rebuild->block_count > 0 && have >= first_new ? have + 1 : first_new;
        uint64_t *blocks =
            realloc(rebuild->blocks, (rebuild->block_count + 2) * sizeof(*rebuild->blocks));
        if (blocks == NULL)
            return err_new(ERR_NO_MEMORY, "refcounts");
        rebuild->blocks = blocks;
        blocks[rebuild->block_count++] = next;
        if (rebuild->table_clusters * check->cluster_bytes > QCOW_REFCOUNT_TABLE_BYTES_MAX)
            return err_new(ERR_INVALID, "the file is too large for refcounts of its width");
    }
}

static struct err *write_block(struct rebuild *rebuild, uint64_t number, uint8_t *data)
{
    struct qcow_check *check = rebuild->check;
    unsigned order = check->header.refcount_order;
    uint64_t most = order == 6 ? UINT64_MAX : ((uint64_t)1 << (1u << order)) - 1;
    uint64_t first = rebuild->blocks[number] * rebuild->block_counts;

    memset(data, 0, check->cluster_bytes);
    for (uint64_t i = 0; i < rebuild->block_counts; i++) {
        uint64_t count;
        TRY(find_count(rebuild, first + i, &count));
        if (count > most)
            return err_new(ERR_INVALID,
                           "the cluster at %" PRIu64 " is referenced %" PRIu64 " times, which "
                           "counts of this width can not say; copy the image ('vm-disk convert')",
                           (first + i) << check->header.cluster_bits, count);
        if (count > 0)
            qcow_refcount_width_set(data, i, order, count);
    }
    return host_file_write_bytes(check->file, data, check->cluster_bytes,
                                 (rebuild->first + number) << check->header.cluster_bits);
}

static struct err *write_table(const struct rebuild *rebuild)
{
    struct qcow_check *check = rebuild->check;
    size_t len = (size_t)(rebuild->table_clusters << check->header.cluster_bits);
    CLEANUP(cleanup_free) uint8_t *data = calloc(1, len);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "refcount table");

    for (uint64_t i = 0; i < rebuild->block_count; i++) {
        struct writer out = writer_of(data + rebuild->blocks[i] * 8, 8);
        writer_be64(&out, (rebuild->first + i) << check->header.cluster_bits);
    }
    return host_file_write_bytes(check->file, data, len,
                                 (rebuild->first + rebuild->block_count)
                                     << check->header.cluster_bits);
}

/* One write inside sector 0. */
static struct err *change_over(const struct rebuild *rebuild)
{
    struct qcow_check *check = rebuild->check;
    uint8_t fields[12];
    struct writer out = writer_of(fields, sizeof(fields));

    TRY(host_file_sync(check->file));
    writer_be64(&out, (rebuild->first + rebuild->block_count) << check->header.cluster_bits);
    writer_be32(&out, (uint32_t)rebuild->table_clusters);
    TRY(host_file_write_bytes(check->file, fields, sizeof(fields), QCOW_HEADER_AT_REFCOUNT_TABLE));
    return host_file_sync(check->file);
}

static struct err *rebuild_all(struct rebuild *rebuild)
{
    struct qcow_check *check = rebuild->check;
    CLEANUP(cleanup_free) uint8_t *data = malloc(check->cluster_bytes);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "refcounts");

    TRY(note_old(rebuild));
    TRY(plan(rebuild));
    for (uint64_t i = 0; i < rebuild->block_count; i++)
        TRY(write_block(rebuild, i, data));
    TRY(write_table(rebuild));
    return change_over(rebuild);
}

struct err *qcow_repair_counts_rebuild(struct qcow_check *check)
{
    struct rebuild rebuild = {
        .check = check, .block_counts = counts_in_block(check), .first = check->end_cluster};
    struct err *err = rebuild_all(&rebuild);

    qcow_reference_map_finish(&rebuild.old);
    free(rebuild.blocks);
    return err;
}

struct err *qcow_repair_counts_raise(struct qcow_check *check)
{
    uint64_t blocks = divide_up(check->end_cluster, counts_in_block(check));
    CLEANUP(cleanup_free) uint8_t *data = malloc(check->cluster_bytes);

    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "refcounts");
    for (uint64_t i = 0; i < blocks; i++)
        if ((i >= check->refcount_entries || check->refcount_table[i] == 0) &&
            is_block_wanted(check, i))
            return qcow_repair_counts_rebuild(check);
    for (uint64_t i = 0; i < MIN(blocks, check->refcount_entries); i++)
        if (check->refcount_table[i] != 0)
            TRY(raise_block(check, i, data));
    return host_file_sync(check->file);
}
