/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_repair_flags.c - see qcow_repair_flags.h.
 * Tested by: qcow_repair_test.c
 */
#include "storage/qcow/qcow_repair_flags.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_check_internal.h"

#define SECTOR_BYTES 512u

enum direction { DIRECTION_CLEAR, DIRECTION_SET };

/* A table in memory, of which changed sectors are written back. */
struct table {
    struct qcow_check *check;
    uint8_t *data;
    size_t len;
    uint64_t offset;
    size_t stride; /* bytes from one descriptor to the next */
    enum direction direction;
    bool is_changed;
};

static uint64_t get(const uint8_t *at)
{
    struct reader in = reader_of(at, 8);

    return reader_be64(&in);
}

static void put(uint8_t *at, uint64_t value)
{
    struct writer out = writer_of(at, 8);

    writer_be64(&out, value);
}

/* May the cluster be written in place, as far as is known? Where some references are not, its count
 * has to say the same. */
static struct err *look_at(struct qcow_check *check, uint64_t cluster, bool *out_is_single)
{
    uint64_t stored = 1;

    if (check->keeps_counts)
        TRY(qcow_check_stored(check, cluster, &stored));
    *out_is_single = qcow_reference_map_count(&check->references, cluster) == 1 && stored <= 1;
    return NULL;
}

/* What the descriptor should be. Malformed ones and those of compressed clusters have no flag. */
static struct err *correct_one(const struct table *table, bool is_l1, uint64_t *inout_descriptor)
{
    struct qcow_check *check = table->check;
    uint64_t descriptor = *inout_descriptor;
    bool is_single = false;
    uint64_t offset = descriptor & QCOW_OFFSET_MASK;
    enum qcow_owner wanted = is_l1 ? QCOW_OWNER_L2 : QCOW_OWNER_DATA;
    uint64_t cluster = offset >> check->header.cluster_bits;

    if (descriptor == QCOW_ENTRY_COPIED)
        *inout_descriptor = 0;
    if (offset == 0 || (!is_l1 && (descriptor & QCOW_ENTRY_COMPRESSED) != 0) ||
        offset % check->cluster_bytes != 0 ||
        qcow_reference_map_owner(&check->references, cluster) != wanted)
        return NULL;
    TRY(look_at(check, cluster, &is_single));
    if (table->direction == DIRECTION_SET && is_single)
        *inout_descriptor = descriptor | QCOW_ENTRY_COPIED;
    if (table->direction == DIRECTION_CLEAR && !is_single)
        *inout_descriptor = descriptor & ~QCOW_ENTRY_COPIED;
    return NULL;
}

/* Writes each sector of which a descriptor changes. */
static struct err *correct_table(struct table *table, bool is_l1)
{
    for (size_t at = 0; at < table->len; at += SECTOR_BYTES) {
        size_t len = MIN(SECTOR_BYTES, table->len - at);
        bool is_changed = false;
        for (size_t i = at; i < at + len; i += table->stride) {
            uint64_t before = get(table->data + i), after = before;
            TRY(correct_one(table, is_l1, &after));
            if (before != after)
                put(table->data + i, after);
            is_changed = is_changed || before != after;
        }
        if (is_changed)
            TRY(host_file_write_bytes(table->check->file, table->data + at, len,
                                      table->offset + at));
        table->is_changed = table->is_changed || is_changed;
    }
    return NULL;
}

static struct err *correct_l2_tables(struct table *l1)
{
    struct qcow_check *check = l1->check;
    CLEANUP(cleanup_free) uint8_t *data = malloc(check->cluster_bytes);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "L2 tables");

    for (size_t i = 0; i < l1->len; i += 8) {
        uint64_t offset = get(l1->data + i) & QCOW_OFFSET_MASK;
        struct table table = {.check = check,
                              .data = data,
                              .len = check->cluster_bytes,
                              .offset = offset,
                              .stride = qcow_entry_is_extended(&check->context) ? 16 : 8,
                              .direction = l1->direction};
        uint64_t cluster = offset >> check->header.cluster_bits;
        if (offset == 0 || qcow_reference_map_count(&check->active, cluster) == 0)
            continue;
        TRY(host_file_read_bytes(check->file, data, check->cluster_bytes, offset));
        TRY(correct_table(&table, false));
        l1->is_changed = l1->is_changed || table.is_changed;
    }
    return NULL;
}

static struct err *correct(struct qcow_check *check, enum direction direction)
{
    size_t len = (size_t)check->header.l1_entries * 8;
    CLEANUP(cleanup_free) uint8_t *data = malloc(len + 1);
    struct table l1 = {.check = check,
                       .data = data,
                       .len = len,
                       .offset = check->header.l1_offset,
                       .stride = 8,
                       .direction = direction};

    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "L1 table");
    /* One that overlaps something else is left alone. */
    if (len == 0 ||
        qcow_reference_map_owner(&check->references, l1.offset >> check->header.cluster_bits) !=
            QCOW_OWNER_L1)
        return NULL;
    TRY(host_file_read_bytes(check->file, data, len, l1.offset));
    TRY(correct_table(&l1, true));
    TRY(correct_l2_tables(&l1));
    return l1.is_changed ? host_file_sync(check->file) : NULL;
}

struct err *qcow_repair_flags_clear(struct qcow_check *check)
{
    return correct(check, DIRECTION_CLEAR);
}

struct err *qcow_repair_flags_set(struct qcow_check *check)
{
    return correct(check, DIRECTION_SET);
}
