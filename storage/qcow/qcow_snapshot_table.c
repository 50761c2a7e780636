/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_snapshot_table.c - see qcow_snapshot_table.h.
 *
 * qcow2, "Snapshots": each entry has a fixed part of 40 bytes, extra data, id, name, and padding
 * to 8 bytes; the last one may lack the padding.
 */
#include "storage/qcow/qcow_snapshot_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_layout.h"

#define FIXED_BYTES    40u
#define EXTRA_KNOWN    24u /* size of VM state, disk size, icount */
#define EXTRA_V3_BYTES 16u /* what version 3 demands */

struct lengths {
    uint16_t id, name;
    uint32_t extra;
};

static void parse_fixed(struct reader *in, struct qcow_snapshot *snapshot, struct lengths *lengths)
{
    snapshot->l1_offset = reader_be64(in);
    snapshot->l1_entries = reader_be32(in);
    lengths->id = reader_be16(in);
    lengths->name = reader_be16(in);
    snapshot->date_s = reader_be32(in);
    snapshot->date_ns = reader_be32(in);
    snapshot->vm_clock_ns = reader_be64(in);
    snapshot->vm_state_bytes = reader_be32(in);
    lengths->extra = reader_be32(in);
}

static struct err *check_fixed(const struct qcow_header *header,
                               const struct qcow_snapshot *snapshot, const struct lengths *lengths)
{
    if (lengths->extra > QCOW_SNAPSHOT_EXTRA_MAX)
        return err_new(ERR_INVALID, "%u bytes of extra data; the most is %u", lengths->extra,
                       QCOW_SNAPSHOT_EXTRA_MAX);
    if (header->version >= 3 && lengths->extra < EXTRA_V3_BYTES)
        return err_new(ERR_INVALID, "%u bytes of extra data; version 3 has %u or more",
                       lengths->extra, EXTRA_V3_BYTES);
    if (snapshot->l1_offset % ((uint64_t)1 << header->cluster_bits) != 0 ||
        snapshot->l1_offset > INT64_MAX || (uint64_t)snapshot->l1_entries * 8 > QCOW_L1_BYTES_MAX)
        return err_new(ERR_INVALID, "its L1 table of %u entries at %llu is not possible",
                       snapshot->l1_entries, (unsigned long long)snapshot->l1_offset);
    return NULL;
}

/* What is absent means what was before it existed. */
static struct err *parse_extra(struct reader *in, const struct qcow_header *header, uint32_t len,
                               struct qcow_snapshot *snapshot)
{
    snapshot->disk_bytes = header->virtual_bytes;
    snapshot->icount = QCOW_SNAPSHOT_ICOUNT_OFF;
    if (len >= 8)
        snapshot->vm_state_bytes = reader_be64(in);
    if (len >= 16)
        snapshot->disk_bytes = reader_be64(in);
    if (len >= EXTRA_KNOWN)
        snapshot->icount = reader_be64(in);

    uint32_t rest = len - MIN(len & ~7u, EXTRA_KNOWN);
    const uint8_t *data = reader_take(in, rest);
    if (data == NULL || rest == 0)
        return NULL;
    snapshot->more_extra = malloc(rest);
    if (snapshot->more_extra == NULL)
        return err_new(ERR_NO_MEMORY, "snapshot");
    memcpy(snapshot->more_extra, data, rest);
    snapshot->more_extra_bytes = rest;
    return NULL;
}

static struct err *parse_text(struct reader *in, size_t len, char **out_text)
{
    const uint8_t *data = reader_take(in, len);
    if (data == NULL)
        return err_new(ERR_INVALID, "it is cut short");

    char *text = strndup((const char *)data, len);
    if (text == NULL)
        return err_new(ERR_NO_MEMORY, "snapshot");
    *out_text = text;
    return NULL;
}

static struct err *parse_rest(struct reader *in, const struct qcow_header *header,
                              const struct lengths *lengths, struct qcow_snapshot *snapshot)
{
    TRY(parse_extra(in, header, lengths->extra, snapshot));
    TRY(parse_text(in, lengths->id, &snapshot->id));
    return parse_text(in, lengths->name, &snapshot->name);
}

/* Reads from `offset` what lies inside the file. */
static struct err *read_inside(struct host_file *file, uint64_t file_bytes, uint64_t offset,
                               uint8_t *out_data, size_t len)
{
    if (!range_is_within(offset, len, file_bytes))
        return err_new(ERR_INVALID, "it reaches past the end of the file");
    return len == 0 ? NULL : host_file_read_bytes(file, out_data, len, offset);
}

static struct err *load_entry(struct host_file *file, const struct qcow_header *header,
                              uint64_t offset, struct qcow_snapshot *snapshot, uint64_t *out_bytes)
{
    uint8_t fixed[FIXED_BYTES];
    struct lengths lengths;
    uint64_t file_bytes;

    TRY(host_file_size(file, &file_bytes));
    TRY(read_inside(file, file_bytes, offset, fixed, sizeof(fixed)));
    struct reader in = reader_of(fixed, sizeof(fixed));
    parse_fixed(&in, snapshot, &lengths);
    TRY(check_fixed(header, snapshot, &lengths));

    size_t len = (size_t)lengths.extra + lengths.id + lengths.name;
    CLEANUP(cleanup_free) uint8_t *rest = malloc(len + 1);
    if (rest == NULL)
        return err_new(ERR_NO_MEMORY, "snapshot");
    TRY(read_inside(file, file_bytes, offset + FIXED_BYTES, rest, len));
    in = reader_of(rest, len);
    *out_bytes = align_up(FIXED_BYTES + len, 8);
    return parse_rest(&in, header, &lengths, snapshot);
}

struct err *qcow_snapshot_table_load(struct host_file *file, const struct qcow_header *header,
                                     struct qcow_snapshot_table *out_table)
{
    struct qcow_snapshot_table table = {.list = NULL};
    struct err *err = NULL;

    if (header->snapshot_count > QCOW_SNAPSHOTS_MAX)
        return err_new(ERR_INVALID, "%u internal snapshots; the most is %u", header->snapshot_count,
                       QCOW_SNAPSHOTS_MAX);
    table.list = calloc((size_t)header->snapshot_count + 1, sizeof(*table.list));
    if (table.list == NULL)
        err = err_new(ERR_NO_MEMORY, "snapshots of '%s'", file->path);
    while (err == NULL && table.count < header->snapshot_count) {
        uint64_t bytes = 0;
        struct qcow_snapshot *snapshot = &table.list[table.count++];
        err = load_entry(file, header, header->snapshots_offset + table.table_bytes, snapshot,
                         &bytes);
        table.table_bytes += bytes;
        if (err == NULL && table.table_bytes > QCOW_SNAPSHOT_TABLE_BYTES_MAX)
            err = err_new(ERR_INVALID, "the table is larger than %u bytes",
                          QCOW_SNAPSHOT_TABLE_BYTES_MAX);
    }
    if (err != NULL) {
        err = err_wrap(err, "internal snapshot %u of '%s'", table.count, file->path);
        qcow_snapshot_table_finish(&table);
        return err;
    }
    *out_table = table;
    return NULL;
}

void qcow_snapshot_table_finish(struct qcow_snapshot_table *table)
{
    for (uint32_t i = 0; i < table->count; i++) {
        free(table->list[i].id);
        free(table->list[i].name);
        free(table->list[i].more_extra);
    }
    free(table->list);
    *table = (struct qcow_snapshot_table){.list = NULL};
}

static size_t entry_bytes(const struct qcow_snapshot *snapshot)
{
    return (size_t)align_up(FIXED_BYTES + EXTRA_KNOWN + snapshot->more_extra_bytes +
                                strlen(snapshot->id) + strlen(snapshot->name),
                            8);
}

static void build_entry(struct writer *out, const struct qcow_snapshot *snapshot)
{
    static const uint8_t padding[8];
    size_t id_bytes = strlen(snapshot->id), name_bytes = strlen(snapshot->name);
    size_t bytes = FIXED_BYTES + EXTRA_KNOWN + snapshot->more_extra_bytes + id_bytes + name_bytes;

    writer_be64(out, snapshot->l1_offset);
    writer_be32(out, snapshot->l1_entries);
    writer_be16(out, (uint16_t)id_bytes);
    writer_be16(out, (uint16_t)name_bytes);
    writer_be32(out, snapshot->date_s);
    writer_be32(out, snapshot->date_ns);
    writer_be64(out, snapshot->vm_clock_ns);
    writer_be32(out,
                snapshot->vm_state_bytes > UINT32_MAX ? 0 : (uint32_t)snapshot->vm_state_bytes);
    writer_be32(out, EXTRA_KNOWN + snapshot->more_extra_bytes);
    writer_be64(out, snapshot->vm_state_bytes);
    writer_be64(out, snapshot->disk_bytes);
    writer_be64(out, snapshot->icount);
    writer_bytes(out, snapshot->more_extra, snapshot->more_extra_bytes);
    writer_bytes(out, snapshot->id, id_bytes);
    writer_bytes(out, snapshot->name, name_bytes);
    writer_bytes(out, padding, (size_t)align_up(bytes, 8) - bytes);
}

struct err *qcow_snapshot_table_build(const struct qcow_snapshot_table *table, uint8_t **out_data,
                                      size_t *out_len)
{
    size_t len = 0;

    for (uint32_t i = 0; i < table->count; i++)
        len += entry_bytes(&table->list[i]);
    if (table->count > QCOW_SNAPSHOTS_MAX || len > QCOW_SNAPSHOT_TABLE_BYTES_MAX)
        return err_new(ERR_STATE, "the image has no room for another internal snapshot");
    uint8_t *data = calloc(1, len + 1);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "table of internal snapshots");

    struct writer out = writer_of(data, len);
    for (uint32_t i = 0; i < table->count; i++)
        build_entry(&out, &table->list[i]);
    *out_data = data;
    *out_len = len;
    return NULL;
}
