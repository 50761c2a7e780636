/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_command.c - see snapshot_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/snapshot_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_snapshot.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_units.h"
#include "tools/vm-disk/locked_file.h"

static struct {
    const char *create;
    const char *apply;
    const char *remove;
    bool list;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_FLAG("list", 'l', SETTINGS, list, "show them, which is also done without an option"),
    OPTION_TEXT("create", 'c', SETTINGS, create, "NAME", NULL, "take one of the disk as it is"),
    OPTION_TEXT("apply", 'a', SETTINGS, apply, "ID|NAME", NULL,
                "go back to one; what was written since is lost"),
    OPTION_TEXT("delete", 'd', SETTINGS, remove, "ID|NAME", NULL,
                "delete one; where a name is another's number, say id=NUMBER or name=NAME"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk snapshot",
    .arguments = "IMAGE",
    .summary = "Works with the snapshots that lie inside a qcow2 image.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

static json_t *snapshot_json(const struct qcow_snapshot *snapshot)
{
    return json_pack("{s:o, s:o, s:I, s:I, s:I}", "id", program_json_text(snapshot->id), "name",
                     program_json_text(snapshot->name), "date", (json_int_t)snapshot->date_s,
                     "disk_bytes", (json_int_t)snapshot->disk_bytes, "vm_state_bytes",
                     (json_int_t)snapshot->vm_state_bytes);
}

static void print_json(const char *path, const struct qcow_snapshot_table *snapshots)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < snapshots->count; i++)
        json_array_append_new(list, snapshot_json(&snapshots->list[i]));
    program_json_print(
        json_pack("{s:o, s:o}", "image", program_json_text(path), "snapshots", list));
}

static void print_text(const struct qcow_snapshot_table *snapshots)
{
    for (uint32_t i = 0; i < snapshots->count; i++) {
        const struct qcow_snapshot *snapshot = &snapshots->list[i];
        time_t date = (time_t)snapshot->date_s;
        char when[32] = "";
        struct tm local;
        if (localtime_r(&date, &local) != NULL)
            (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &local);
        program_print_text(stdout, snapshot->id);
        (void)printf("%*s %s  %10s disk %10s state  ", MAX(0, 4 - (int)strlen(snapshot->id)), "",
                     when, readable_bytes(snapshot->disk_bytes).text,
                     readable_bytes(snapshot->vm_state_bytes).text);
        program_print_text(stdout, snapshot->name);
        (void)putchar('\n');
    }
}

static struct err *show(const char *path, struct host_file *file)
{
    struct qcow_snapshot_table snapshots;

    TRY(qcow_snapshot_list(file, &snapshots));
    if (settings.json)
        print_json(path, &snapshots);
    else
        print_text(&snapshots);
    qcow_snapshot_table_finish(&snapshots);
    return NULL;
}

static bool is_change(void)
{
    return settings.create != NULL || settings.apply != NULL || settings.remove != NULL;
}

static struct err *check_options(void)
{
    int count = (settings.create != NULL) + (settings.apply != NULL) + (settings.remove != NULL) +
                (settings.list ? 1 : 0);

    return count <= 1
               ? NULL
               : err_new(ERR_INVALID, "--list, --create, --apply and --delete: one at a time");
}

static struct err *work(const char *path, struct host_file *file)
{
    if (settings.create != NULL)
        return qcow_snapshot_create(file, settings.create, clock_realtime_ns());
    if (settings.apply != NULL)
        return qcow_snapshot_apply(file, settings.apply);
    if (settings.remove != NULL)
        return qcow_snapshot_delete(file, settings.remove);
    return show(path, file);
}

static struct err *run(const struct option_result *operands)
{
    const char *path = operands->operands[0];
    struct host_file *file = NULL;

    program_check_usage(check_options());
    TRY(locked_file_open(path, is_change() ? DISK_IMAGE_WRITABLE : DISK_IMAGE_READ_ONLY, &file));
    struct err *err = work(path, file);
    if (err == NULL && is_change() && settings.json)
        err = show(path, file);
    host_file_destroy(file);
    return err;
}

const struct program_verb snapshot_command = {"snapshot", &table, &settings, run};
