/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sealed_disk.c - see sealed_disk.h. Tested by: restore_test.c
 */
#include "snapshot/sealed_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "storage/disk_image.h"
#include "storage/layer_list.h"

static int64_t modified_ns(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * (int64_t)NS_PER_S + (int64_t)status->st_mtim.tv_nsec;
}

static struct err *read_layers(const Ferry__SnapshotDisk *disk, struct sealed_disk_folders folders,
                               struct layer_list *out_list)
{
    struct disk_image_name name = {.path = disk->path,
                                   .format = disk->format,
                                   .access = DISK_IMAGE_READ_ONLY,
                                   .folders = folders.paths,
                                   .folder_count = folders.count};

    return layer_list_read(&name, out_list);
}

static struct err *add_layer(Ferry__SnapshotDisk *disk, const struct layer_info *info)
{
    Ferry__SnapshotLayer *layer = malloc(sizeof(*layer));

    if (layer == NULL)
        return err_new(ERR_NO_MEMORY, "describe disk '%s'", disk->id);
    ferry__snapshot_layer__init(layer);
    disk->layers[disk->n_layers++] = layer;
    layer->path = strdup(info->path);
    layer->file_bytes = info->end_bytes;
    layer->modified_ns = info->modified_ns;
    return layer->path == NULL ? err_new(ERR_NO_MEMORY, "describe disk '%s'", disk->id) : NULL;
}

static struct err *look_below(Ferry__SnapshotDisk *disk, const struct layer_list *list)
{
    disk->layers = calloc(list->count, sizeof(*disk->layers));
    if (disk->layers == NULL)
        return err_new(ERR_NO_MEMORY, "describe disk '%s'", disk->id);
    for (unsigned i = 0; i + 1 < list->count; i++)
        TRY(add_layer(disk, &list->layers[i]));
    return NULL;
}

void sealed_disk_drop_layers(Ferry__SnapshotDisk *disk)
{
    while (disk->n_layers > 0) {
        Ferry__SnapshotLayer *layer = disk->layers[--disk->n_layers];
        free(layer->path);
        free(layer);
    }
    free(TAKE_PTR(disk->layers));
}

struct err *sealed_disk_look(Ferry__SnapshotDisk *disk, struct sealed_disk_folders folders)
{
    struct layer_list list = {0};
    struct stat status;

    if (stat(disk->path, &status) != 0)
        return err_errno(errno, "look at the image '%s' of disk '%s'", disk->path, disk->id);
    disk->file_bytes = (uint64_t)status.st_size;
    disk->modified_ns = modified_ns(&status);
    if (strcmp(disk->format, "qcow2") != 0)
        return NULL;
    TRY(read_layers(disk, folders, &list));
    struct err *err = look_below(disk, &list);
    layer_list_finish(&list);
    if (err != NULL)
        sealed_disk_drop_layers(disk);
    return err;
}

/* Snapshots of older versions do not tell what they stand on. */
static struct err *check_layer(const Ferry__SnapshotDisk *disk, const struct layer_info *now)
{
    const Ferry__SnapshotLayer *then = NULL;
    bool is_same = false;

    for (size_t i = 0; i < disk->n_layers && then == NULL; i++)
        if (strcmp(disk->layers[i]->path, now->path) == 0)
            then = disk->layers[i];
    if (then != NULL && then->modified_ns == now->modified_ns)
        TRY(layer_stands_for(now->path, now->format, then->file_bytes, &is_same));
    if (is_same)
        return NULL;
    return err_new(ERR_STATE,
                   "disk '%s': its image '%s' stands on '%s', which %s; put the original back",
                   disk->id, disk->path, now->path,
                   then == NULL ? "it did not when the snapshot was taken"
                                : "was altered after the snapshot (size or modification time)");
}

static struct err *check_layers(const Ferry__SnapshotDisk *disk, struct sealed_disk_folders folders)
{
    struct layer_list list = {0};
    struct err *err = NULL;

    if (disk->n_layers == 0)
        return NULL;
    TRY(read_layers(disk, folders, &list));
    for (unsigned i = 0; i + 1 < list.count && err == NULL; i++)
        err = check_layer(disk, &list.layers[i]);
    layer_list_finish(&list);
    return err;
}

struct err *sealed_disk_check(const Ferry__SnapshotDisk *disk, struct sealed_disk_folders folders)
{
    struct disk_image_name name = {.path = disk->path,
                                   .format = disk->format,
                                   .access = DISK_IMAGE_READ_ONLY,
                                   .folders = folders.paths,
                                   .folder_count = folders.count};
    struct stat status;
    uint64_t virtual_bytes = 0;
    bool is_same = false;

    if (stat(disk->path, &status) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_new(
            ERR_NOT_FOUND,
            "disk '%s': its image '%s' is missing; put it back, or make a link there, if the "
            "folder has another name on this host",
            disk->id, disk->path);
    if (stat(disk->path, &status) != 0)
        return err_errno(errno, "disk '%s': look at '%s'", disk->id, disk->path);
    if (modified_ns(&status) == disk->modified_ns)
        TRY(layer_stands_for(disk->path, disk->format, disk->file_bytes, &is_same));
    if (!is_same)
        return err_new(ERR_STATE,
                       "disk '%s': its image '%s' was altered after the snapshot (size or "
                       "modification time); put the original back",
                       disk->id, disk->path);
    if (!disk->read_only && (status.st_mode & 0222) != 0)
        return err_new(ERR_STATE,
                       "disk '%s': its image '%s' is not sealed any more: somebody made it "
                       "writable; if its content is the original, chmod a-w it",
                       disk->id, disk->path);
    TRY(disk_image_check_named(&name, &virtual_bytes));
    if (virtual_bytes != disk->virtual_bytes)
        return err_new(ERR_STATE, "disk '%s': its image '%s' has %llu bytes instead of %llu",
                       disk->id, disk->path, (unsigned long long)virtual_bytes,
                       (unsigned long long)disk->virtual_bytes);
    return check_layers(disk, folders);
}
