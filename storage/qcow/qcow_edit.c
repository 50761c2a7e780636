/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_edit.c - see qcow_edit.h.
 * Tested by: qcow_snapshot_test.c and qcow_snapshot_cut_test.c
 */
#include "storage/qcow/qcow_edit.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/qcow/qcow_repair_counts.h"
#include "storage/qcow/qcow_repair_flags.h"

#define SECTOR_BYTES 512u

/* qcow2, "autoclear_features": unknown ones go before the image is changed. */
static struct err *clear_autoclear(struct host_file *file, const struct qcow_header *header)
{
    uint64_t kept = qcow_header_has_bitmaps(header) ? QCOW_AUTOCLEAR_BITMAPS : 0;

    return kept == header->autoclear
               ? NULL
               : qcow_header_write_field(file, QCOW_HEADER_AT_AUTOCLEAR, kept);
}

static struct err *prepare(struct host_file *file)
{
    struct qcow_header header;

    TRY(qcow_header_read(file, &header));
    TRY(qcow_header_check_writable(&header));
    TRY(qcow_repair_unclosed(file, &header));
    return clear_autoclear(file, &header);
}

/* Flags that are wrong are put right by the way. */
static struct err *check_is_sound(const struct qcow_check *check)
{
    if (check->report.errors > check->report.flag_errors || check->report.is_dirty)
        return err_new(ERR_STATE,
                       "the image has %" PRIu64 " errors; repair it first ('vm-disk check -r all')",
                       check->report.errors);
    return NULL;
}

struct err *qcow_edit_begin(struct qcow_edit *edit, struct host_file *file)
{
    *edit = (struct qcow_edit){.is_changed = false};
    TRY(prepare(file));
    struct err *err = qcow_check_init(&edit->check, file, NULL);
    if (err == NULL)
        err = qcow_check_run(&edit->check);
    if (err == NULL)
        err = check_is_sound(&edit->check);
    if (err != NULL)
        qcow_check_finish(&edit->check);
    return err;
}

static struct err *is_unused(struct qcow_check *check, uint64_t cluster, bool *out_is_unused)
{
    uint64_t stored = 0;

    *out_is_unused = false;
    if (qcow_reference_map_count(&check->references, cluster) > 0)
        return NULL;
    if (cluster < check->end_cluster)
        TRY(qcow_check_stored(check, cluster, &stored));
    *out_is_unused = stored == 0;
    return NULL;
}

/* The first run that is long enough; the last may go on behind the end of the file. */
static struct err *find_unused(struct qcow_check *check, uint64_t count, uint64_t *out_first)
{
    uint64_t first = 1;

    for (uint64_t at = 1; at < first + count && at < check->end_cluster; at++) {
        bool fits;
        TRY(is_unused(check, at, &fits));
        if (!fits)
            first = at + 1;
    }
    *out_first = first;
    return NULL;
}

struct err *qcow_edit_take(struct qcow_edit *edit, uint64_t bytes, enum qcow_owner owner,
                           uint64_t *out_offset)
{
    struct qcow_check *check = &edit->check;
    uint64_t count = divide_up(bytes, check->cluster_bytes), first = 0;
    bool is_usable = true;

    ASSERT(!edit->is_changed);
    if (count > 0) {
        TRY(find_unused(check, count, &first));
        check->end_cluster = MAX(check->end_cluster, first + count);
        TRY(qcow_check_refer(check, first << check->header.cluster_bits,
                             count << check->header.cluster_bits, 1, owner, &is_usable));
    }
    ASSERT(is_usable);
    *out_offset = first << check->header.cluster_bits;
    return NULL;
}

struct err *qcow_edit_raise(struct qcow_edit *edit)
{
    struct qcow_check *check = &edit->check;
    uint64_t incompatible = check->header.incompatible | QCOW_INCOMPATIBLE_DIRTY;

    TRY(qcow_repair_counts_have_room(check));
    edit->is_changed = true;
    if (check->header.version >= 3)
        TRY(qcow_header_write_field(check->file, QCOW_HEADER_AT_INCOMPATIBLE, incompatible));
    return qcow_repair_counts_raise(check);
}

struct err *qcow_edit_write(struct qcow_edit *edit, const void *data, size_t len, uint64_t offset)
{
    uint64_t rest = align_up(len, edit->check.cluster_bytes) - len;

    ASSERT(edit->is_changed);
    if (len > 0)
        TRY(host_file_write_bytes(edit->check.file, data, len, offset));
    return rest == 0 ? NULL : host_file_write_zeroes(edit->check.file, offset + len, rest);
}

struct err *qcow_edit_publish(struct qcow_edit *edit, const void *fields, size_t len, size_t offset)
{
    struct host_file *file = edit->check.file;
    uint8_t before[SECTOR_BYTES];

    ASSERT(edit->is_changed && offset + len <= SECTOR_BYTES);
    TRY(host_file_read_bytes(file, before, len, offset));
    TRY(host_file_sync(file));
    struct err *err = host_file_write_bytes(file, fields, len, offset);
    if (err == NULL)
        return host_file_sync(file);

    struct err *back_err = host_file_write_bytes(file, before, len, offset);
    if (back_err != NULL)
        host_file_give_up(file); /* whether the old or the new state is there is unknown */
    err_free(back_err);
    return err;
}

struct err *qcow_edit_publish_disk(struct qcow_edit *edit, uint64_t virtual_bytes,
                                   uint32_t l1_entries, uint64_t l1_offset)
{
    uint8_t fields[24];
    struct writer out = writer_of(fields, sizeof(fields));

    writer_be64(&out, virtual_bytes);
    writer_be32(&out, edit->check.header.crypt_method);
    writer_be32(&out, l1_entries);
    writer_be64(&out, l1_offset);
    return qcow_edit_publish(edit, fields, sizeof(fields), QCOW_HEADER_AT_SIZE);
}

/* Gives the host the space of what nothing refers to, while it is still counted. What the host can
 * not punch just keeps its space. */
static struct err *punch_unused(struct qcow_check *check)
{
    unsigned bits = check->header.cluster_bits;

    for (uint64_t at = 1, run; at < check->end_cluster; at += run + 1) {
        for (run = 0; at + run < check->end_cluster; run++) {
            uint64_t stored = 0;
            if (qcow_reference_map_count(&check->references, at + run) > 0)
                break;
            TRY(qcow_check_stored(check, at + run, &stored));
            if (stored == 0)
                break;
        }
        if (run > 0)
            err_free(host_file_punch(check->file, at << bits, run << bits));
    }
    return NULL;
}

static struct err *settle(struct qcow_check *check)
{
    TRY(qcow_check_run(check));
    if (check->report.errors > check->report.flag_errors)
        return err_new(ERR_STATE, "%" PRIu64 " errors are in the image; see 'vm-disk check'",
                       check->report.errors);
    TRY(qcow_repair_flags_clear(check));
    TRY(punch_unused(check));
    TRY(qcow_repair_counts_lower(check));
    TRY(qcow_repair_flags_set(check));
    if (check->header.version < 3)
        return NULL;
    return qcow_header_write_field(check->file, QCOW_HEADER_AT_INCOMPATIBLE,
                                   check->header.incompatible & ~QCOW_INCOMPATIBLE_DIRTY);
}

struct err *qcow_edit_end(struct qcow_edit *edit, struct err *err)
{
    struct host_file *file = edit->check.file;
    struct qcow_check check;

    qcow_check_finish(&edit->check);
    if (!edit->is_changed)
        return err;

    struct err *end_err = qcow_check_init(&check, file, NULL);
    if (end_err == NULL)
        end_err = settle(&check);
    qcow_check_finish(&check);
    if (err == NULL)
        return end_err;
    err_free(end_err); /* the image stays marked, and is repaired when it is next opened */
    return err;
}
