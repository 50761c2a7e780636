/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_check.c - see qcow_check.h.
 *
 * How it works. The parts that the header names are counted first: refcount structures, snapshots,
 * bitmaps, L1 tables. Each L1 entry adds a reference to its L2 table. Then every L2 table is read
 * once, and each of its entries counts as often as the table is referenced: a snapshot shares whole
 * tables, so a thousand snapshots cost no more than one. At the end the counts are compared with
 * those that the image holds.
 */
#include "storage/qcow/qcow_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked_math.h"
#include "storage/qcow/qcow_check_internal.h"

#define FINDING_BYTES_MAX 256u

__attribute__((format(printf, 3, 0))) static void
tell(struct qcow_check *check, enum qcow_finding kind, const char *fmt, va_list args)
{
    char text[FINDING_BYTES_MAX];

    if (check->listener == NULL)
        return;
    (void)vsnprintf(text, sizeof(text), fmt, args);
    check->listener->found(check->listener, kind, text);
}

void qcow_check_error(struct qcow_check *check, const char *fmt, ...)
{
    va_list args;

    check->report.errors++;
    va_start(args, fmt);
    tell(check, QCOW_FINDING_ERROR, fmt, args);
    va_end(args);
}

void qcow_check_leak(struct qcow_check *check, const char *fmt, ...)
{
    va_list args;

    check->report.leaks++;
    va_start(args, fmt);
    tell(check, QCOW_FINDING_LEAK, fmt, args);
    va_end(args);
}

/* Clusters may share an owner of guest data, and snapshots share L2 tables; nothing else. */
static bool may_share(enum qcow_owner before, enum qcow_owner owner)
{
    return before == QCOW_OWNER_NONE ||
           (before == owner && (owner == QCOW_OWNER_DATA || owner == QCOW_OWNER_L2));
}

struct err *qcow_check_refer(struct qcow_check *check, uint64_t offset, uint64_t len,
                             uint32_t times, enum qcow_owner owner, bool *out_is_usable)
{
    unsigned bits = check->header.cluster_bits;
    bool is_usable = true;

    *out_is_usable = false;
    if (len == 0)
        return NULL;
    if (!range_is_within(offset, len, check->end_cluster << bits)) {
        qcow_check_error(check, "%s at %" PRIu64 " reaches past the end of the file",
                         qcow_owner_name(owner), offset);
        return NULL;
    }
    for (uint64_t cluster = offset >> bits; cluster <= (offset + len - 1) >> bits; cluster++) {
        enum qcow_owner before = QCOW_OWNER_NONE;
        if (!qcow_reference_map_add(&check->references, cluster, times, owner, &before))
            return err_new(ERR_NO_MEMORY, "check '%s'", check->file->path);
        if (may_share(before, owner))
            continue;
        qcow_check_error(check, "the cluster at %" PRIu64 " is %s and %s", cluster << bits,
                         qcow_owner_name(before), qcow_owner_name(owner));
        is_usable = false;
    }
    *out_is_usable = is_usable;
    return NULL;
}

struct err *qcow_check_init(struct qcow_check *check, struct host_file *file,
                            struct qcow_check_listener *listener)
{
    *check = (struct qcow_check){.file = file, .listener = listener};
    TRY(host_file_size(file, &check->file_bytes));
    TRY(qcow_header_read(file, &check->header));
    check->cluster_bytes = (uint64_t)1 << check->header.cluster_bits;
    check->end_cluster = divide_up(check->file_bytes, check->cluster_bytes);
    check->context = qcow_entry_context_of(&check->header);
    check->report = (struct qcow_check_report){
        .cluster_bytes = check->cluster_bytes,
        .total_clusters = divide_up(check->header.virtual_bytes, check->cluster_bytes),
        .is_dirty = (check->header.incompatible & QCOW_INCOMPATIBLE_DIRTY) != 0,
        .is_corrupt = (check->header.incompatible & QCOW_INCOMPATIBLE_CORRUPT) != 0,
    };
    return NULL;
}

void qcow_check_finish(struct qcow_check *check)
{
    qcow_reference_map_finish(&check->references);
    qcow_reference_map_finish(&check->tables);
    qcow_reference_map_finish(&check->active);
    for (size_t i = 0; i < QCOW_CHECK_BLOCKS; i++)
        free(check->blocks[i].counts);
    free(check->refcount_table);
}

struct err *qcow_check_run(struct qcow_check *check)
{
    bool is_usable;

    TRY(qcow_check_refer(check, 0, 1, 1, QCOW_OWNER_HEADER, &is_usable));
    TRY(qcow_check_refcount_table(check));
    TRY(qcow_check_snapshots(check));
    TRY(qcow_check_bitmaps(check));
    TRY(qcow_check_l1(check, check->header.l1_offset, check->header.l1_entries, true));
    TRY(qcow_check_l2_tables(check));
    return qcow_check_counts(check);
}

struct err *qcow_check(struct host_file *file, struct qcow_check_listener *listener,
                       struct qcow_check_report *out_report)
{
    struct qcow_check check;
    struct err *err = qcow_check_init(&check, file, listener);

    if (err == NULL)
        err = qcow_check_run(&check);
    if (err == NULL)
        *out_report = check.report;
    qcow_check_finish(&check);
    return err == NULL ? NULL : err_wrap(err, "check '%s'", file->path);
}
