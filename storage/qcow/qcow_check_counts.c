/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_check_counts.c - the refcount structures of an image: whether they are in order, and
 * whether they say what was found.
 * Tested by: qcow_check_test.c
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_check_internal.h"
#include "storage/qcow/qcow_refcount_width.h"

#define TABLE_RESERVED 0x1ffu /* qcow2, "Refcount table entry": bits 0 to 8 are reserved */

static uint64_t block_counts(const struct qcow_check *check)
{
    return check->cluster_bytes * 8 >> check->header.refcount_order;
}

/* Entries that can not be used become 0, as if there were no block. */
static struct err *check_entry(struct qcow_check *check, uint64_t index, uint64_t entry)
{
    bool is_usable = false;

    if (entry == 0)
        return NULL;
    if ((entry & TABLE_RESERVED) != 0 || entry % check->cluster_bytes != 0)
        qcow_check_error(check,
                         "entry %" PRIu64 " of the refcount table, 0x%" PRIx64 ", is malformed",
                         index, entry);
    else
        TRY(qcow_check_refer(check, entry, check->cluster_bytes, 1, QCOW_OWNER_REFCOUNT_BLOCK,
                             &is_usable));
    if (is_usable)
        check->refcount_table[index] = entry;
    else
        check->report.count_errors++;
    return NULL;
}

struct err *qcow_check_refcount_table(struct qcow_check *check)
{
    uint64_t bytes = (uint64_t)check->header.refcount_table_clusters << check->header.cluster_bits;
    CLEANUP(cleanup_free) uint8_t *data = malloc(bytes);
    bool is_usable;

    check->refcount_entries = bytes / 8;
    check->refcount_table = calloc(check->refcount_entries, sizeof(uint64_t));
    if (data == NULL || check->refcount_table == NULL)
        return err_new(ERR_NO_MEMORY, "refcount table");
    TRY(qcow_check_refer(check, check->header.refcount_table_offset, bytes, 1,
                         QCOW_OWNER_REFCOUNT_TABLE, &is_usable));
    TRY(host_file_read_bytes(check->file, data, bytes, check->header.refcount_table_offset));
    struct reader in = reader_of(data, bytes);
    for (uint64_t i = 0; i < check->refcount_entries; i++)
        TRY(check_entry(check, i, reader_be64(&in)));
    return NULL;
}

static struct qcow_check_block *oldest_block(struct qcow_check *check)
{
    struct qcow_check_block *oldest = &check->blocks[0];

    for (size_t i = 1; i < QCOW_CHECK_BLOCKS; i++)
        if (check->blocks[i].used < oldest->used)
            oldest = &check->blocks[i];
    return oldest;
}

/* The counts of a block, which exists. */
static struct err *load_block(struct qcow_check *check, uint64_t index, const uint8_t **out_counts)
{
    for (size_t i = 0; i < QCOW_CHECK_BLOCKS; i++) {
        struct qcow_check_block *block = &check->blocks[i];
        if (block->used != 0 && block->index == index) {
            block->used = ++check->block_uses;
            *out_counts = block->counts;
            return NULL;
        }
    }

    struct qcow_check_block *block = oldest_block(check);
    if (block->counts == NULL)
        block->counts = malloc(check->cluster_bytes);
    if (block->counts == NULL)
        return err_new(ERR_NO_MEMORY, "refcount block");
    block->used = 0; /* until it has been read */
    TRY(host_file_read_bytes(check->file, block->counts, check->cluster_bytes,
                             check->refcount_table[index]));
    block->index = index;
    block->used = ++check->block_uses;
    *out_counts = block->counts;
    return NULL;
}

struct err *qcow_check_stored(struct qcow_check *check, uint64_t cluster, uint64_t *out_count)
{
    uint64_t index = cluster / block_counts(check);
    const uint8_t *counts = NULL;

    *out_count = 0;
    if (index >= check->refcount_entries || check->refcount_table[index] == 0)
        return NULL;
    TRY(load_block(check, index, &counts));
    *out_count = qcow_refcount_width_get(counts, cluster % block_counts(check),
                                         check->header.refcount_order);
    return NULL;
}

static void compare(struct qcow_check *check, uint64_t cluster, uint64_t stored, uint64_t counted)
{
    uint64_t offset = cluster << check->header.cluster_bits;

    if (counted > 0)
        check->report.image_end = MAX(check->report.image_end, offset + check->cluster_bytes);
    if (stored > counted) {
        qcow_check_leak(check,
                        "the cluster at %" PRIu64 " has the count %" PRIu64 " for %" PRIu64
                        " references",
                        offset, stored, counted);
    } else if (stored < counted) {
        check->report.count_errors++;
        qcow_check_error(check,
                         "the cluster at %" PRIu64 " has the count %" PRIu64 " for %" PRIu64
                         " references",
                         offset, stored, counted);
    }
}

/* Counts of clusters behind the end of the file mean nothing. */
static struct err *compare_block(struct qcow_check *check, uint64_t index)
{
    uint64_t first = index * block_counts(check);
    uint64_t count = MIN(block_counts(check), check->end_cluster - first);
    const uint8_t *counts = NULL;

    TRY(load_block(check, index, &counts));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t stored = qcow_refcount_width_get(counts, i, check->header.refcount_order);
        compare(check, first + i, stored, qcow_reference_map_count(&check->references, first + i));
    }
    return NULL;
}

static bool has_block(const struct qcow_check *check, uint64_t cluster)
{
    uint64_t index = cluster / block_counts(check);

    return index < check->refcount_entries && check->refcount_table[index] != 0;
}

/* Clusters that are in use and whose count stands nowhere. */
static struct err *compare_uncounted(struct qcow_check *check)
{
    const struct qcow_reference_chunk **chunks = qcow_reference_map_sorted(&check->references);
    if (chunks == NULL)
        return err_new(ERR_NO_MEMORY, "references");

    for (size_t i = 0; i < check->references.chunk_count; i++) {
        uint64_t first = chunks[i]->number << QCOW_REFERENCE_CHUNK_BITS;
        for (uint64_t j = 0; j < QCOW_REFERENCE_CHUNK_CLUSTERS; j++)
            if (chunks[i]->counts[j] > 0 && !has_block(check, first + j))
                compare(check, first + j, 0, chunks[i]->counts[j]);
    }
    free((void *)chunks);
    return NULL;
}

struct err *qcow_check_counts(struct qcow_check *check)
{
    uint64_t blocks = divide_up(check->end_cluster, block_counts(check));

    for (uint64_t i = 0; i < MIN(blocks, check->refcount_entries); i++)
        if (check->refcount_table[i] != 0)
            TRY(compare_block(check, i));
    return compare_uncounted(check);
}
