/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_layers.c - see disk_layers.h. Tested by: tests/system/disk_layers_test.py
 */
#include "snapshot/disk_layers.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "control/control_client.h"
#include "snapshot/layer_prune.h"
#include "storage/layer_list.h"
#include "storage/layer_merge.h"
#include "storage/layer_merge_policy.h"

struct disk_layers {
    struct control_client *client;
    const Ferry__SnapshotManifest *manifest;
    enum disk_layers_merged merged;
};

static struct disk_image_name name_of(const Ferry__SnapshotManifest *manifest, const char *path)
{
    const Ferry__MachineConfig *config = manifest->description->config;

    return (struct disk_image_name){
        .path = path,
        .format = "qcow2",
        .access = DISK_IMAGE_READ_ONLY,
        .folders = (const char *const *)config->image_folders,
        .folder_count = config->n_image_folders,
    };
}

/* The last one that can not be merged: the rest stands on it. */
static unsigned lowest_of(const struct layer_list *list)
{
    unsigned lowest = 0;

    for (unsigned i = 1; i < list->count; i++) {
        const struct layer_info *layer = &list->layers[i];
        if (!layer->is_sealed || strcmp(layer->format, "qcow2") != 0 || layer->has_records)
            lowest = i;
    }
    return lowest;
}

static bool choose(const struct layer_list *list, struct layer_range *out_range)
{
    uint64_t bytes[DISK_BACKING_DEPTH_MAX + 1];
    unsigned lowest = lowest_of(list);

    for (unsigned i = lowest; i < list->count; i++)
        bytes[i - lowest] = list->layers[i].file_bytes;
    if (!layer_merge_choose(bytes, list->count - lowest, out_range))
        return false;
    out_range->first += lowest;
    out_range->last += lowest;
    return true;
}

/* Saves and restores at work may need them: then it is left to whoever prunes, like all else that
 * can not be done here. */
static struct err *remove_merged(const struct layer_list *list, struct layer_range range,
                                 struct disk_layers_result *result)
{
    CLEANUP(cleanup_name_list) struct name_list names = {0};
    struct layer_prune_request request = {.image = list->layers[range.last].path, .only = &names};
    struct layer_prune_report report;

    for (unsigned i = range.first; i < range.last; i++)
        TRY(name_list_add(&names, name_in_folder(list->layers[i].path)));
    struct err *err = layer_prune(&request, LAYER_PRUNE_TRY_REMOVE, &report);
    if (err != NULL && err_kind(err) == ERR_DENIED) {
        err_free(err);
        return NULL;
    }
    TRY(err_wrap(err, "layers that were merged stay; 'vm-snapshot prune' removes them"));
    result->removed += (unsigned)report.count;
    result->removed_bytes += report.bytes;
    layer_prune_report_finish(&report);
    return NULL;
}

static struct err *merge(const struct disk_layers *self, const Ferry__SnapshotDisk *disk,
                         const struct layer_list *list, struct disk_layers_result *result)
{
    struct layer_merge_result merged;
    struct layer_range range;

    if (!choose(list, &range))
        return NULL;
    const char *path = list->layers[range.last].path;
    struct disk_image_name name = name_of(self->manifest, path);
    unsigned count = range.last - range.first + 1;
    TRY(layer_merge(&name, count, NULL, &merged));
    result->copied_bytes += merged.copied_bytes;
    TRY(control_swap_layers(self->client, disk->id, path));
    result->merged += count - 1;
    return self->merged == DISK_LAYERS_REMOVE_MERGED ? remove_merged(list, range, result) : NULL;
}

static struct err *shorten(const struct disk_layers *self, const Ferry__SnapshotDisk *disk,
                           struct disk_layers_result *result)
{
    struct disk_image_name name = name_of(self->manifest, disk->path);
    struct layer_list list;

    TRY(layer_list_read(&name, &list));
    struct err *err = merge(self, disk, &list, result);
    layer_list_finish(&list);
    return err;
}

struct err *disk_layers_shorten(struct control_client *client,
                                const Ferry__SnapshotManifest *manifest,
                                enum disk_layers_merged merged,
                                struct disk_layers_result *out_result)
{
    const struct disk_layers self = {.client = client, .manifest = manifest, .merged = merged};
    struct err *first_err = NULL;

    *out_result = (struct disk_layers_result){0};
    for (size_t i = 0; i < manifest->n_disks; i++) {
        const Ferry__SnapshotDisk *disk = manifest->disks[i];
        if (disk->read_only || strcmp(disk->format, "qcow2") != 0)
            continue;
        struct err *err = shorten(&self, disk, out_result);
        if (first_err == NULL)
            first_err = err_wrap(err, "disk '%s'", disk->id);
        else
            err_free(err);
    }
    return first_err;
}
