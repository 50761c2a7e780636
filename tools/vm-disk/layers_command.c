/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layers_command.c - see layers_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/layers_command.h"

#include <stdio.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/layer_merge.h"
#include "storage/layer_rebase.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_units.h"
#include "tools/vm-disk/disk_progress.h"
#include "tools/vm-disk/held_backing.h"
#include "tools/vm-disk/image_facts.h"

static struct {
    struct option_list folders;
    uint64_t count;
    const char *backing, *backing_format;
    bool is_name_only, json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_LIST("image-folder", 0, SETTINGS, folders, "FOLDER",
                "backing images may lie here, too; may be repeated"),
    OPTION_NUMBER("count", 'n', SETTINGS, count, "N", 2, DISK_BACKING_DEPTH_MAX, 2,
                  "to merge: how many layers become one, IMAGE and those below it"),
    OPTION_TEXT("backing", 'b', SETTINGS, backing, "IMAGE", NULL,
                "to rebase: the new image below, named as seen from IMAGE"),
    OPTION_TEXT("backing-format", 'F', SETTINGS, backing_format, "FORMAT", NULL,
                "of that, qcow2 or raw; must be said"),
    OPTION_FLAG("name-only", 'u', SETTINGS, is_name_only,
                "to rebase: copy nothing; for when the image below was moved, but is the same"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk layers",
    .arguments = "list|merge|flatten|rebase IMAGE",
    .summary = "Lists the layers of a disk, merges sealed ones while machines run on them, copies "
               "all into the newest (flatten), or puts that onto another image (rebase).",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 2,
    .operands_max = 2,
};

/* Draws while merging or copying. */
struct drawn {
    struct layer_merge_watch watch;
    struct disk_progress progress;
};

static bool go_on(struct layer_merge_watch *watch, uint64_t done_bytes, uint64_t total_bytes)
{
    struct drawn *drawn = CONTAINER_OF(watch, struct drawn, watch);

    drawn->progress.total_bytes = total_bytes;
    struct err *err = disk_progress_at(&drawn->progress, done_bytes);
    err_free(err);
    return err == NULL;
}

static struct disk_image_name name_of(const char *path)
{
    return (struct disk_image_name){.path = path,
                                    .format = "qcow2",
                                    .access = DISK_IMAGE_WRITABLE,
                                    .folders = settings.folders.values,
                                    .folder_count = settings.folders.count};
}

static json_t *layer_json(const struct image_facts *layer)
{
    return json_pack("{s:o, s:s, s:b, s:b, s:I}", "image", program_json_text(layer->path), "format",
                     layer->is_qcow ? "qcow2" : "raw", "sealed", layer->is_sealed, "in_use",
                     layer->is_written, "host_bytes", (json_int_t)layer->host_bytes);
}

static void print_layers(const struct image_chain_facts *chain)
{
    for (size_t i = 0; i < chain->count; i++) {
        const struct image_facts *layer = &chain->layers[i];
        (void)printf("%3zu  %10s  %-6s %-7s %s\n", i, readable_bytes(layer->host_bytes).text,
                     layer->is_sealed ? "sealed" : "", layer->is_written ? "in use" : "",
                     layer->path);
    }
}

static struct err *list(const char *path)
{
    struct image_folders *folders = NULL;
    struct image_chain_facts chain;

    TRY(image_folders_create(path, settings.folders.values, settings.folders.count, &folders));
    struct err *err = image_chain_look(path, "qcow2", folders, &chain);
    if (!settings.json) {
        print_layers(&chain);
    } else if (chain.count > 0) {
        json_t *layers = json_array();
        for (size_t i = 0; i < chain.count; i++)
            json_array_append_new(layers, layer_json(&chain.layers[i]));
        program_json_print(json_pack("{s:o}", "layers", layers));
    }
    image_chain_facts_finish(&chain);
    image_folders_destroy(folders);
    return err;
}

static void report(const char *path, const char *done, uint64_t copied_bytes)
{
    if (settings.json)
        program_json_print(json_pack("{s:o, s:I}", "image", program_json_text(path), "copied_bytes",
                                     (json_int_t)copied_bytes));
    else
        (void)printf("%s %s: %s copied\n", done, path, readable_bytes(copied_bytes).text);
}

static struct err *merge(const char *path)
{
    struct disk_image_name name = name_of(path);
    struct drawn drawn = {.watch = {.go_on = go_on}};
    struct layer_merge_result result;

    disk_progress_begin(&drawn.progress, "merge", 0, settings.json);
    struct err *err = layer_merge(&name, (unsigned)settings.count, &drawn.watch, &result);
    (void)disk_progress_end(&drawn.progress);
    if (err == NULL)
        report(path, "merged into", result.copied_bytes);
    return err;
}

static struct err *put_onto(const char *path, const char *backing, const char *done)
{
    struct drawn drawn = {.watch = {.go_on = go_on}};
    struct layer_rebase rebase = {
        .image = name_of(path),
        .backing = backing,
        .backing_format = settings.backing_format,
        .watch = &drawn.watch,
    };
    uint64_t copied_bytes = 0;

    disk_progress_begin(&drawn.progress, done, 0, settings.json);
    struct err *err =
        settings.is_name_only ? layer_rebase_name(&rebase) : layer_rebase(&rebase, &copied_bytes);
    (void)disk_progress_end(&drawn.progress);
    if (err == NULL)
        report(path, done, copied_bytes);
    return err;
}

static struct err *flatten(const char *path)
{
    settings.is_name_only = false;
    return put_onto(path, NULL, "flattened");
}

static struct err *check_backing(void)
{
    if (settings.backing == NULL)
        return err_new(ERR_INVALID, "say with --backing what the image is put onto; 'flatten' puts "
                                    "it onto none");
    if (settings.backing_format == NULL || (strcmp(settings.backing_format, "qcow2") != 0 &&
                                            strcmp(settings.backing_format, "raw") != 0))
        return err_new(ERR_INVALID, "say with --backing-format whether '%s' is qcow2 or raw",
                       settings.backing);
    return NULL;
}

static struct err *rebase(const char *path)
{
    CLEANUP(cleanup_held_layers) struct held_layers *held = NULL;
    struct held_backing backing = {.image = path,
                                   .backing = settings.backing,
                                   .format = settings.backing_format,
                                   .folders = &settings.folders};

    program_check_usage(check_backing());
    TRY(held_backing_take(&backing, &held));
    return put_onto(path, settings.backing, "rebased");
}

static struct err *run(const struct option_result *operands)
{
    static const struct {
        const char *name;
        struct err *(*run)(const char *path);
    } actions[] = {{"list", list}, {"merge", merge}, {"flatten", flatten}, {"rebase", rebase}};

    for (size_t i = 0; i < ARRAY_COUNT(actions); i++)
        if (strcmp(operands->operands[0], actions[i].name) == 0)
            return actions[i].run(operands->operands[1]);
    program_check_usage(err_new(ERR_INVALID,
                                "layers are listed, merged, flattened or rebased, not "
                                "'%s'; see vm-disk layers --help",
                                operands->operands[0]));
    return NULL;
}

const struct program_verb layers_command = {"layers", &table, &settings, run};
