/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_edit_l1.c - L1 tables and what they lead to, for qcow_edit.h.
 * Tested by: qcow_snapshot_test.c and qcow_snapshot_cut_test.c
 */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_edit.h"

#define SECTOR_BYTES 512u

struct err *qcow_edit_l1_load(const struct qcow_edit *edit, uint64_t offset, uint32_t count,
                              struct qcow_edit_l1 *out_l1)
{
    size_t bytes = (size_t)count * 8;
    CLEANUP(cleanup_free) uint8_t *data = malloc(bytes + 1);
    struct qcow_edit_l1 l1 = {.entries = malloc(bytes + 1), .count = count};
    struct err *err =
        data == NULL || l1.entries == NULL ? err_new(ERR_NO_MEMORY, "L1 table") : NULL;

    if (err == NULL && count > 0)
        err = host_file_read_bytes(edit->check.file, data, bytes, offset);
    if (err != NULL) {
        qcow_edit_l1_finish(&l1);
        return err;
    }
    struct reader in = reader_of(data, bytes);
    for (uint32_t i = 0; i < count; i++)
        l1.entries[i] = reader_be64(&in);
    *out_l1 = l1;
    return NULL;
}

void qcow_edit_l1_finish(struct qcow_edit_l1 *l1)
{
    free(l1->entries);
    *l1 = (struct qcow_edit_l1){.entries = NULL};
}

struct err *qcow_edit_l1_write(struct qcow_edit *edit, const struct qcow_edit_l1 *l1,
                               uint64_t offset)
{
    size_t bytes = (size_t)l1->count * 8;
    CLEANUP(cleanup_free) uint8_t *data = malloc(bytes + 1);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "L1 table");

    struct writer out = writer_of(data, bytes);
    for (uint32_t i = 0; i < l1->count; i++)
        writer_be64(&out, l1->entries[i]);
    return qcow_edit_write(edit, data, bytes, offset);
}

static struct err *read_table(const struct qcow_edit *edit, uint64_t offset, uint8_t *data)
{
    return host_file_read_bytes(edit->check.file, data, edit->check.cluster_bytes, offset);
}

static struct err *refer_entry(struct qcow_check *check, struct qcow_entry entry)
{
    uint64_t end = check->end_cluster << check->header.cluster_bits;
    struct qcow_cluster cluster;
    bool is_usable;

    if (!qcow_l2_entry_decode(entry, &check->context, &cluster) || cluster.host_offset == 0)
        return NULL;
    uint64_t len = cluster.is_compressed ? MIN(cluster.compressed_bytes, end - cluster.host_offset)
                                         : check->cluster_bytes;
    return qcow_check_refer(check, cluster.host_offset, len, 1, QCOW_OWNER_DATA, &is_usable);
}

static struct err *refer_table(struct qcow_edit *edit, uint64_t offset, uint8_t *data)
{
    struct qcow_check *check = &edit->check;
    bool is_extended = qcow_entry_is_extended(&check->context), is_usable;

    TRY(qcow_check_refer(check, offset, check->cluster_bytes, 1, QCOW_OWNER_L2, &is_usable));
    TRY(read_table(edit, offset, data));
    struct reader in = reader_of(data, check->cluster_bytes);
    while (reader_left(&in) > 0) {
        struct qcow_entry entry = {.descriptor = reader_be64(&in)};
        if (is_extended)
            entry.bitmap = reader_be64(&in);
        TRY(refer_entry(check, entry));
    }
    return NULL;
}

struct err *qcow_edit_refer_tree(struct qcow_edit *edit, const struct qcow_edit_l1 *l1)
{
    CLEANUP(cleanup_free) uint8_t *data = malloc(edit->check.cluster_bytes);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "L2 tables");

    for (uint32_t i = 0; i < l1->count; i++) {
        uint64_t offset = l1->entries[i] & QCOW_OFFSET_MASK;
        if (offset != 0)
            TRY(refer_table(edit, offset, data));
    }
    return NULL;
}

/* The flags of one sector of a table; true when any was set. */
static bool clear_flags(uint8_t *sector, size_t len, size_t stride)
{
    bool is_changed = false;

    for (size_t at = 0; at < len; at += stride) {
        struct reader in = reader_of(sector + at, 8);
        struct writer out = writer_of(sector + at, 8);
        uint64_t entry = reader_be64(&in);
        if ((entry & QCOW_ENTRY_COPIED) == 0)
            continue;
        writer_be64(&out, entry & ~QCOW_ENTRY_COPIED);
        is_changed = true;
    }
    return is_changed;
}

static struct err *share_table(struct qcow_edit *edit, uint64_t offset, uint8_t *data)
{
    struct qcow_check *check = &edit->check;
    size_t stride = (size_t)1 << qcow_entry_bytes_bits(&check->context);

    TRY(read_table(edit, offset, data));
    for (size_t at = 0; at < check->cluster_bytes; at += SECTOR_BYTES)
        if (clear_flags(data + at, SECTOR_BYTES, stride))
            TRY(host_file_write_bytes(check->file, data + at, SECTOR_BYTES, offset + at));
    return NULL;
}

struct err *qcow_edit_l1_share(struct qcow_edit *edit, struct qcow_edit_l1 *l1)
{
    CLEANUP(cleanup_free) uint8_t *data = malloc(edit->check.cluster_bytes);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "L2 tables");

    for (uint32_t i = 0; i < l1->count; i++) {
        uint64_t offset = l1->entries[i] & QCOW_OFFSET_MASK;
        l1->entries[i] = offset;
        if (offset != 0)
            TRY(share_table(edit, offset, data));
    }
    return NULL;
}
