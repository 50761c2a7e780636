/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_repair.c - see qcow_repair.h.
 *
 * How it works. References are what they are; counts and flags are made to follow them, each step
 * durable before the next:
 *
 *   1. flags that allow writing in place to what is shared are cleared
 *   2. counts: where all are at least as high as the references, those above are lowered in place;
 *      else new refcount structures are written beside the old ones, and the header changes over
 *      to them in one write
 *   3. flags that are missing are set: only now is the count one that they say
 *   4. a second check must find no error; then the header is marked clean
 *
 * Where entries can not be read, nobody knows what they refer to: a damaged record of a snapshot
 * must not cost all that the snapshots hold. Counts only become higher then, and no flag is set.
 */
#include "storage/qcow/qcow_repair.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_check_internal.h"
#include "storage/qcow/qcow_repair_counts.h"
#include "storage/qcow/qcow_repair_flags.h"

/* Of tables and entries: what they should say is not known. */
static uint64_t structural_errors(const struct qcow_check_report *report)
{
    return report->errors - report->flag_errors - report->count_errors;
}

static bool is_clean(const struct qcow_check_report *report)
{
    return report->errors == 0 && report->leaks == 0 && !report->is_dirty && !report->is_corrupt;
}

/* Counts are not lowered while entries can not be read: what they refer to would be given away. */
static struct err *repair_leaks(struct qcow_check *check)
{
    const struct qcow_check_report *report = &check->report;

    if (structural_errors(report) > 0 || report->count_errors > 0)
        return err_new(ERR_STATE,
                       "'%s' has errors beside its leaks, so what leaks is not certain; "
                       "repair all of it ('vm-disk check -r all')",
                       check->file->path);
    TRY(qcow_repair_flags_clear(check));
    TRY(qcow_repair_counts_lower(check));
    return qcow_repair_flags_set(check);
}

static struct err *repair_all(struct qcow_check *check)
{
    const struct qcow_check_report *report = &check->report;

    TRY(qcow_repair_flags_clear(check));
    if (report->count_errors > 0)
        TRY(qcow_repair_counts_rebuild(check));
    else if (!check->keeps_counts)
        TRY(qcow_repair_counts_lower(check));
    return check->keeps_counts ? NULL : qcow_repair_flags_set(check);
}

/* Version 2 has no such bits. */
static struct err *mark_clean(struct host_file *file, struct qcow_check_report *report,
                              const struct qcow_header *header)
{
    uint64_t marks = QCOW_INCOMPATIBLE_DIRTY | QCOW_INCOMPATIBLE_CORRUPT;

    if ((header->incompatible & marks) == 0)
        return NULL;
    TRY(qcow_header_write_field(file, QCOW_HEADER_AT_INCOMPATIBLE, header->incompatible & ~marks));
    report->is_dirty = report->is_corrupt = false;
    return NULL;
}

static bool has_missing_bitmaps(const struct qcow_header *header)
{
    return (header->autoclear & QCOW_AUTOCLEAR_BITMAPS) != 0 && !header->has_bitmap_extension;
}

static struct err *forget_missing_bitmaps(const struct qcow_check *check)
{
    const struct qcow_header *header = &check->header;

    if (!has_missing_bitmaps(header))
        return NULL;
    return qcow_header_write_field(check->file, QCOW_HEADER_AT_AUTOCLEAR,
                                   header->autoclear & ~QCOW_AUTOCLEAR_BITMAPS);
}

static struct err *refuse_errors(uint64_t errors)
{
    if (errors == 0)
        return NULL;
    return err_new(ERR_STATE,
                   "the image was not closed properly, and %" PRIu64 " errors in it can not be "
                   "repaired; see 'vm-disk check'",
                   errors);
}

static struct err *repair_found(struct qcow_check *check, enum qcow_repair_scope scope)
{
    const struct qcow_check_report *report = &check->report;

    if (scope == QCOW_REPAIR_UNCLOSED)
        TRY(refuse_errors(structural_errors(report)));
    if (scope != QCOW_REPAIR_LEAKS)
        TRY(forget_missing_bitmaps(check));
    if (is_clean(report))
        return NULL;
    check->keeps_counts =
        structural_errors(report) > (has_missing_bitmaps(&check->header) ? 1u : 0u);
    return scope == QCOW_REPAIR_LEAKS ? repair_leaks(check) : repair_all(check);
}

static struct err *repair_once(struct host_file *file, enum qcow_repair_scope scope,
                               struct qcow_check_listener *listener,
                               struct qcow_check_report *out_before)
{
    struct qcow_check check;
    struct err *err = qcow_check_init(&check, file, listener);

    if (err == NULL)
        err = qcow_check_run(&check);
    *out_before = check.report;
    if (err == NULL)
        err = repair_found(&check, scope);
    qcow_check_finish(&check);
    return err;
}

struct err *qcow_repair(struct host_file *file, enum qcow_repair_scope scope,
                        struct qcow_check_listener *listener, struct qcow_repair_report *out_report)
{
    struct qcow_repair_report report;
    struct qcow_check check;

    struct err *err = repair_once(file, scope, listener, &report.before);
    if (err != NULL)
        return err_wrap(err, "repair '%s'", file->path);
    err = qcow_check_init(&check, file, NULL);
    if (err == NULL)
        err = qcow_check_run(&check);
    if (err == NULL && scope != QCOW_REPAIR_LEAKS && check.report.errors == 0)
        err = mark_clean(file, &check.report, &check.header);
    report.after = check.report;
    qcow_check_finish(&check);
    if (err != NULL)
        return err_wrap(err, "repair '%s'", file->path);
    *out_report = report;
    return NULL;
}

struct err *qcow_repair_unclosed(struct host_file *file, struct qcow_header *header)
{
    struct qcow_repair_report report = {.after = {.errors = 0}};

    if ((header->incompatible & QCOW_INCOMPATIBLE_DIRTY) == 0)
        return NULL;
    TRY(qcow_repair(file, QCOW_REPAIR_UNCLOSED, NULL, &report));
    TRY(refuse_errors(report.after.errors));
    log_warning("image was not closed properly, repaired", "image=%s errors=%llu leaks=%llu",
                file->path, (unsigned long long)report.before.errors,
                (unsigned long long)report.before.leaks);
    return qcow_header_read(file, header);
}
