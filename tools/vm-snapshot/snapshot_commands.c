/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_commands.c - see snapshot_commands.h. Tested by: tests/system, which reads what it
 * prints.
 */
#include "tools/vm-snapshot/snapshot_commands.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "control/runtime_folder.h"
#include "snapshot/catalog.h"
#include "snapshot/store_directory.h"
#include "snapshot/verify.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_units.h"
#include "tools/vm-snapshot/prune_command.h"
#include "tools/vm-snapshot/snapshot_list.h"

static struct err *store_path(const struct snapshot_settings *settings, char **out_path)
{
    if (settings->stores.count == 0)
        return state_folder("snapshots", out_path);
    if (settings->stores.count > 1)
        program_check_usage(err_new(ERR_INVALID, "only prune looks into several stores"));
    *out_path = strdup(settings->stores.values[0]);
    return *out_path == NULL ? err_new(ERR_NO_MEMORY, "path of the store") : NULL;
}

static struct err *open_store(const struct snapshot_settings *settings, const char *machine,
                              struct snapshot_store **out_store)
{
    CLEANUP(cleanup_free) char *path = NULL;

    if (machine != NULL)
        TRY(machine_name_check(machine));
    TRY(store_path(settings, &path));
    return store_directory_open_existing(path, out_store);
}

static struct err *open_snapshot(const struct snapshot_settings *settings, const char *text,
                                 struct snapshot_store **out_store, struct snapshot_name *out_name)
{
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(store_path(settings, &path));
    return catalog_open(text, path, out_store, out_name);
}

struct err *snapshot_command_list(const struct snapshot_settings *settings, const char *machine)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;

    TRY(open_store(settings, machine, &store));
    return snapshot_list_print(store, machine, settings->json, stdout);
}

struct err *snapshot_command_tree(const struct snapshot_settings *settings, const char *machine)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;

    TRY(open_store(settings, machine, &store));
    return snapshot_tree_print(store, machine, settings->json, stdout);
}

struct err *snapshot_command_show(const struct snapshot_settings *settings, const char *snapshot)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct snapshot_name name;

    TRY(open_snapshot(settings, snapshot, &store, &name));
    return snapshot_show_print(store, &name, settings->json, stdout);
}

static json_t *report_json(const struct snapshot_name *name, const struct verify_report *report)
{
    json_t *problems = json_array();

    for (size_t i = 0; i < report->problems.count; i++)
        json_array_append_new(problems, program_json_text(report->problems.names[i]));
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}", "machine", name->machine, "id",
                     name->id.text, "pages_read", (json_int_t)report->pages_read, "pages_zero",
                     (json_int_t)report->pages_zero, "problem_count",
                     (json_int_t)report->problem_count, "problems", problems);
}

static void print_report(const struct snapshot_name *name, const struct verify_report *report)
{
    for (size_t i = 0; i < report->problems.count; i++)
        (void)printf("%s\n", report->problems.names[i]);
    (void)printf("%s/%s: %s, %" PRIu64 " pages read, %" PRIu64 " zero\n", name->machine,
                 name->id.text, verify_report_is_good(report) ? "good" : "DAMAGED",
                 report->pages_read, report->pages_zero);
}

struct err *snapshot_command_verify(const struct snapshot_settings *settings, const char *snapshot)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct snapshot_name name;
    struct verify_report report;

    TRY(open_snapshot(settings, snapshot, &store, &name));
    TRY(snapshot_verify(
        store, name.machine, name.id.text,
        (struct sealed_disk_folders){settings->image_folders.values, settings->image_folders.count},
        &report));
    if (settings->json)
        program_json_print(report_json(&name, &report));
    else
        print_report(&name, &report);
    struct err *err = verify_report_error(&report);
    verify_report_finish(&report);
    return err;
}

/* The images stay: other snapshots and machines may build on them. */
static void print_remaining(const Ferry__SnapshotManifest *manifest,
                            const struct prune_prospect *prospect)
{
    if (prospect->file_count != 0)
        (void)printf("  'vm-snapshot prune' would give back %s in %zu files that nothing needs\n",
                     readable_bytes(prospect->bytes).text, prospect->file_count);
    for (size_t i = 0; i < manifest->n_disks; i++)
        if (!manifest->disks[i]->read_only)
            (void)printf("  the image of disk %s stays, since others may build on it: %s\n",
                         manifest->disks[i]->id, manifest->disks[i]->path);
}

/* How many need it is only told. */
static struct err *retire(struct snapshot_store *store, const struct snapshot_name *name,
                          size_t *out_dependent_count)
{
    CLEANUP(cleanup_name_list) struct name_list dependents = {0};

    err_free(catalog_dependents(store, name->machine, name->id.text, &dependents));
    TRY(store_retire(store, name->machine, name->id.text));
    *out_dependent_count = dependents.count;
    return NULL;
}

struct err *snapshot_command_delete(const struct snapshot_settings *settings, const char *snapshot)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    struct prune_prospect prospect = {0};
    struct snapshot_name name;
    size_t dependent_count = 0;

    TRY(open_snapshot(settings, snapshot, &store, &name));
    /* A damaged one can be deleted too. */
    err_free(catalog_load(store, name.machine, name.id.text, &manifest));
    TRY(settings->keep_memory ? retire(store, &name, &dependent_count)
                              : catalog_delete(store, name.machine, name.id.text));
    /* What keeps from telling does not keep from deleting; to prune says what it is. */
    if (manifest != NULL)
        err_free(prune_look_at(manifest, &prospect));
    if (settings->json) {
        program_json_print(json_pack(
            "{s:s, s:s, s:I, s:I, s:I}", "machine", name.machine, "deleted", name.id.text,
            "memory_needed_by", (json_int_t)dependent_count, "prunable_files",
            (json_int_t)prospect.file_count, "prunable_bytes", (json_int_t)prospect.bytes));
        return NULL;
    }
    (void)printf("deleted %s/%s\n", name.machine, name.id.text);
    if (dependent_count != 0)
        (void)printf("  its memory stays, as %zu later snapshots need it\n", dependent_count);
    if (manifest != NULL)
        print_remaining(manifest, &prospect);
    return NULL;
}
