/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_command.c - see check_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/check_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_repair.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_units.h"
#include "tools/vm-disk/locked_file.h"

#define FINDINGS_PRINTED 100u /* of each kind; all are counted */

static struct {
    const char *repair;
    bool yes;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_TEXT("repair", 'r', SETTINGS, repair, "WHAT", NULL,
                "put right: leaks, or all; asks before it writes"),
    OPTION_FLAG("yes", 'y', SETTINGS, yes, "to --repair: do not ask"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk check",
    .arguments = "IMAGE",
    .summary = "Checks whether a qcow2 image is sound: its tables, counts, snapshots and bitmaps.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

struct printer {
    struct qcow_check_listener base;
    unsigned printed[2];
    json_t *list; /* owned; with --json */
};

static void found(struct qcow_check_listener *base, enum qcow_finding kind, const char *text)
{
    struct printer *printer = CONTAINER_OF(base, struct printer, base);
    const char *name = kind == QCOW_FINDING_ERROR ? "error" : "leak";

    if (printer->printed[kind]++ >= FINDINGS_PRINTED)
        return;
    if (printer->list != NULL)
        json_array_append_new(
            printer->list, json_pack("{s:s, s:o}", "kind", name, "text", program_json_text(text)));
    else
        (void)printf("%s: %s\n", name, text);
}

static json_t *report_json(const struct qcow_check_report *report)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "errors",
                     (json_int_t)report->errors, "leaks", (json_int_t)report->leaks, "image_end",
                     (json_int_t)report->image_end, "total_clusters",
                     (json_int_t)report->total_clusters, "allocated_clusters",
                     (json_int_t)report->allocated_clusters, "compressed_clusters",
                     (json_int_t)report->compressed_clusters, "fragmented_clusters",
                     (json_int_t)report->fragmented_clusters, "dirty", report->is_dirty, "corrupt",
                     report->is_corrupt);
}

static void print_report(const char *path, const struct qcow_check_report *report)
{
    (void)printf(
        "%s: %" PRIu64 " errors, %" PRIu64 " leaked clusters (%s)%s%s\n", path, report->errors,
        report->leaks, readable_bytes(report->leaks * report->cluster_bytes).text,
        report->is_dirty ? ", marked dirty" : "", report->is_corrupt ? ", marked corrupt" : "");
    (void)printf("  %" PRIu64 " of %" PRIu64 " clusters have a place, %" PRIu64
                 " compressed, %" PRIu64 " out of order\n",
                 report->allocated_clusters, report->total_clusters, report->compressed_clusters,
                 report->fragmented_clusters);
}

/* Errors decide over the exit status, leaks do not: nothing is lost by them. */
static struct err *verdict(const char *path, const struct qcow_check_report *report,
                           bool is_repaired)
{
    if (report->errors > 0 && is_repaired)
        return err_new(ERR_INVALID,
                       "'%s' has %" PRIu64
                       " errors that can not be repaired; 'vm-disk convert' may "
                       "still save what can be read",
                       path, report->errors);
    if (report->errors > 0)
        return err_new(ERR_INVALID,
                       "'%s' is damaged; keep a copy, then try 'vm-disk check -r all %s'", path,
                       path);
    if (report->is_corrupt)
        return err_new(ERR_INVALID, "'%s' is marked corrupt; 'vm-disk check -r all %s' clears that",
                       path, path);
    return NULL;
}

static bool needs_repair(const struct qcow_check_report *report, enum qcow_repair_scope scope)
{
    if (scope == QCOW_REPAIR_LEAKS)
        return report->leaks > 0;
    return report->errors > 0 || report->leaks > 0 || report->is_dirty || report->is_corrupt;
}

static struct err *ask(const char *path, const struct qcow_check_report *report)
{
    char answer[16] = "";

    if (settings.yes)
        return NULL;
    if (isatty(STDIN_FILENO) != 1)
        return err_new(ERR_STATE,
                       "repairing '%s' writes to it, and there is no terminal to ask; say --yes",
                       path);
    (void)fprintf(stderr, "%s: %" PRIu64 " errors, %" PRIu64 " leaks. Write to the image? [y/N] ",
                  path, report->errors, report->leaks);
    if (fgets(answer, sizeof(answer), stdin) == NULL || (answer[0] != 'y' && answer[0] != 'Y'))
        return err_new(ERR_CANCELLED, "'%s' is left as it is", path);
    return NULL;
}

static struct err *repair(const char *path, struct host_file *file, enum qcow_repair_scope scope,
                          struct qcow_check_report *inout_report, bool *out_is_repaired)
{
    struct qcow_repair_report report;

    *out_is_repaired = false;
    if (!needs_repair(inout_report, scope))
        return NULL;
    TRY(ask(path, inout_report));
    TRY(qcow_repair(file, scope, NULL, &report));
    *inout_report = report.after;
    *out_is_repaired = true;
    return NULL;
}

static struct err *scope_of(const char *text, enum qcow_repair_scope *out_scope)
{
    if (strcmp(text, "leaks") != 0 && strcmp(text, "all") != 0)
        return err_new(ERR_INVALID, "--repair is 'leaks' or 'all', not '%s'", text);
    *out_scope = strcmp(text, "all") == 0 ? QCOW_REPAIR_ALL : QCOW_REPAIR_LEAKS;
    return NULL;
}

static struct err *check_and_repair(const char *path, struct host_file *file,
                                    struct printer *printer, struct qcow_check_report *out_report,
                                    bool *out_is_repaired)
{
    enum qcow_repair_scope scope;

    *out_is_repaired = false;
    TRY(qcow_check(file, &printer->base, out_report));
    if (settings.repair == NULL)
        return NULL;
    TRY(scope_of(settings.repair, &scope));
    return repair(path, file, scope, out_report, out_is_repaired);
}

static struct err *run(const struct option_result *operands)
{
    const char *path = operands->operands[0];
    struct printer printer = {.base.found = found};
    struct qcow_check_report report;
    struct host_file *file = NULL;
    enum qcow_repair_scope scope;
    bool is_repaired;

    if (settings.repair != NULL)
        program_check_usage(scope_of(settings.repair, &scope));
    TRY(locked_file_open(path, settings.repair == NULL ? DISK_IMAGE_READ_ONLY : DISK_IMAGE_WRITABLE,
                         &file));
    if (settings.json)
        printer.list = json_array();
    struct err *err = check_and_repair(path, file, &printer, &report, &is_repaired);
    host_file_destroy(file);
    if (err != NULL) {
        json_decref(printer.list);
        return err;
    }
    if (settings.json)
        program_json_print(json_pack("{s:o, s:o, s:o, s:b}", "image", program_json_text(path),
                                     "result", report_json(&report), "findings", printer.list,
                                     "repaired", is_repaired));
    else
        print_report(path, &report);
    if (!settings.json && is_repaired)
        (void)printf("  repaired; this is how it is now\n");
    return verdict(path, &report, is_repaired);
}

const struct program_verb check_command = {"check", &table, &settings, run};
