/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_list.c - see snapshot_list.h. Tested by: tests/system, which reads what it prints.
 *
 * Everything is made as JSON first; text is printed from that.
 */
#include "tools/vm-snapshot/snapshot_list.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/limits.h"
#include "snapshot/catalog.h"
#include "tools/program_json.h"

static void format_time(uint64_t realtime_ns, char *out_text, size_t len)
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    struct tm local;

    if (localtime_r(&seconds, &local) == NULL ||
        strftime(out_text, len, "%Y-%m-%d %H:%M:%S", &local) == 0)
        out_text[0] = '\0';
}

/* With its own image, the files that a copy of the disk needs; some may have been merged since. */
static json_t *layers_json(const Ferry__SnapshotDisk *disk)
{
    json_t *list = json_array();

    for (size_t i = 0; i < disk->n_layers; i++)
        json_array_append_new(list, program_json_text(disk->layers[i]->path));
    return list;
}

static json_t *disks_json(const Ferry__SnapshotManifest *manifest)
{
    json_t *list = json_array();

    for (size_t i = 0; i < manifest->n_disks; i++) {
        const Ferry__SnapshotDisk *disk = manifest->disks[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:o, s:s, s:I, s:b, s:o}", "id", disk->id, "path",
                                        program_json_text(disk->path), "format", disk->format,
                                        "bytes", (json_int_t)disk->virtual_bytes, "read_only",
                                        (int)disk->read_only, "layers", layers_json(disk)));
    }
    return list;
}

static json_t *manifest_json(const Ferry__SnapshotManifest *manifest)
{
    const Ferry__SnapshotCounters *counters = manifest->counters;
    const Ferry__MachineConfig *config = manifest->description->config;
    char time[32];

    format_time(manifest->created_realtime_ns, time, sizeof(time));
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "machine",
                     manifest->machine, "id", manifest->id, "parent", manifest->parent, "time",
                     time, "memory_mib", (json_int_t)config->memory_mib, "vcpus",
                     (json_int_t)config->vcpus, "bytes", (json_int_t)counters->bytes,
                     "pages_written", (json_int_t)counters->pages_written, "pages_zero",
                     (json_int_t)counters->pages_zero, "pause_us", (json_int_t)counters->pause_us,
                     "rounds", (json_int_t)counters->rounds, "chain",
                     (json_int_t)manifest->n_page_files, "disks", disks_json(manifest));
}

static json_t *damaged_json(const char *machine, const char *id, struct err *err)
{
    json_t *object = json_pack("{s:s, s:s, s:s, s:o}", "machine", machine, "id", id, "parent", "",
                               "error", program_json_text(err_message(err)));

    err_free(err);
    return object;
}

static struct err *append_machine(struct snapshot_store *store, const char *machine, json_t *list)
{
    CLEANUP(cleanup_name_list) struct name_list ids = {0};

    TRY(store_snapshots(store, machine, &ids));
    for (size_t i = 0; i < ids.count; i++) {
        CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
        struct err *err = catalog_load(store, machine, ids.names[i], &manifest);
        json_array_append_new(list, err == NULL ? manifest_json(manifest)
                                                : damaged_json(machine, ids.names[i], err));
    }
    return NULL;
}

static struct err *collect(struct snapshot_store *store, const char *machine, json_t *list)
{
    CLEANUP(cleanup_name_list) struct name_list machines = {0};

    if (machine != NULL)
        return append_machine(store, machine, list);
    TRY(store_machines(store, &machines));
    for (size_t i = 0; i < machines.count; i++)
        TRY(append_machine(store, machines.names[i], list));
    return NULL;
}

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

static double number_of(json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void print_row(json_t *row, FILE *out)
{
    (void)fprintf(out, "%s/%s", text_of(row, "machine"), text_of(row, "id"));
    if (json_object_get(row, "error") != NULL)
        (void)fprintf(out, "  damaged: %s\n", text_of(row, "error"));
    else
        (void)fprintf(out, "  %s  %8.1f MiB  %s  pause %.1f ms\n", text_of(row, "time"),
                      number_of(row, "bytes") / (double)MIB,
                      text_of(row, "parent")[0] == '\0' ? "full   " : "changes",
                      number_of(row, "pause_us") / 1e3);
}

static bool is_listed(json_t *list, json_t *row, const char *id)
{
    size_t i = 0;
    json_t *other = NULL;

    json_array_foreach(list, i, other) if (strcmp(text_of(other, "id"), id) == 0 &&
                                           strcmp(text_of(other, "machine"),
                                                  text_of(row, "machine")) == 0) return true;
    return false;
}

/* One whose parent has been deleted stands where its parent would. */
static const char *parent_in(json_t *list, json_t *row)
{
    const char *parent = text_of(row, "parent");

    return is_listed(list, row, parent) ? parent : "";
}

/* Children stand under their parent, deeper by one step. */
static void print_children(json_t *list, const char *machine, const char *parent, int depth,
                           FILE *out)
{
    size_t i = 0;
    json_t *row = NULL;

    if (depth > (int)SNAPSHOT_CHAIN_MAX)
        return;
    json_array_foreach(list, i, row)
    {
        if (strcmp(parent_in(list, row), parent) != 0 ||
            strcmp(text_of(row, "machine"), machine) != 0)
            continue;
        (void)fprintf(out, "%*s", 2 * depth, "");
        print_row(row, out);
        print_children(list, machine, text_of(row, "id"), depth + 1, out);
    }
}

static void print_json(json_t *value, FILE *out)
{
    (void)json_dumpf(value, out, JSON_INDENT(2));
    (void)fputc('\n', out);
    json_decref(value);
}

struct err *snapshot_list_print(struct snapshot_store *store, const char *machine, bool json,
                                FILE *out)
{
    json_t *list = json_array();
    size_t i = 0;
    json_t *row = NULL;

    struct err *err = collect(store, machine, list);
    if (err == NULL && json) {
        print_json(list, out);
        return NULL;
    }
    if (err == NULL) {
        json_array_foreach(list, i, row) print_row(row, out);
    }
    json_decref(list);
    return err;
}

struct err *snapshot_tree_print(struct snapshot_store *store, const char *machine, bool json,
                                FILE *out)
{
    CLEANUP(cleanup_name_list) struct name_list machines = {0};

    if (json) /* the list has everybody's parent */
        return snapshot_list_print(store, machine, json, out);
    if (machine != NULL)
        TRY(name_list_add(&machines, machine));
    else
        TRY(store_machines(store, &machines));

    json_t *list = json_array();
    struct err *err = collect(store, machine, list);
    for (size_t i = 0; err == NULL && i < machines.count; i++)
        print_children(list, machines.names[i], "", 0, out);
    json_decref(list);
    return err;
}

struct err *snapshot_show_print(struct snapshot_store *store, const struct snapshot_name *name,
                                bool json, FILE *out)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    const char *key = NULL;
    json_t *value = NULL;

    TRY(catalog_load(store, name->machine, name->id.text, &manifest));
    json_t *object = manifest_json(manifest);
    if (json) {
        print_json(object, out);
        return NULL;
    }
    json_object_foreach(object, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        (void)fprintf(out, "%-14s %s\n", key, text == NULL ? "" : text);
        free(text);
    }
    json_decref(object);
    return NULL;
}
