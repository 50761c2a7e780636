/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_list.c - see layer_list.h.
 * Tested by: layer_merge_test.c
 */
#include "storage/layer_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file_io.h"
#include "storage/image_chain.h"
#include "storage/image_folders.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_predecessors.h"
#include "storage/qcow/qcow_presence.h"

#define WRITE_BITS (S_IWUSR | S_IWGRP | S_IWOTH)

DEFINE_CLEANUP(image_folders, struct image_folders, image_folders_destroy)

static struct err *describe(const struct image_layer *layer, struct layer_info *out_info)
{
    const struct qcow_header *header = layer->is_qcow ? qcow_image_header(layer->block) : NULL;
    struct stat status;

    if (fstat(layer->fd, &status) != 0)
        return err_errno(errno, "look at '%s'", layer->path);
    *out_info = (struct layer_info){
        .path = strdup(layer->path),
        .format = layer->is_qcow ? "qcow2" : "raw",
        .is_sealed = (status.st_mode & WRITE_BITS) == 0,
        .has_records =
            header != NULL && (header->snapshot_count > 0 || qcow_header_has_bitmaps(header)),
        .virtual_bytes = layer->block->virtual_bytes,
        .file_bytes = (uint64_t)status.st_blocks * 512,
        .end_bytes = (uint64_t)status.st_size,
        .modified_ns = (int64_t)status.st_mtim.tv_sec * (int64_t)NS_PER_S + status.st_mtim.tv_nsec,
    };
    return out_info->path == NULL ? err_new(ERR_NO_MEMORY, "look at '%s'", layer->path) : NULL;
}

static struct err *describe_all(const struct image_layers *layers, struct layer_list *out_list)
{
    struct layer_list list = {.layers = calloc(layers->count, sizeof(*list.layers))};
    struct err *err = list.layers == NULL ? err_new(ERR_NO_MEMORY, "list layers") : NULL;

    for (unsigned i = layers->count; i-- > 0 && err == NULL;)
        err = describe(&layers->list[i], &list.layers[list.count++]);
    if (err != NULL) {
        layer_list_finish(&list);
        return err;
    }
    *out_list = list;
    return NULL;
}

struct err *layer_list_read(const struct disk_image_name *name, struct layer_list *out_list)
{
    CLEANUP(cleanup_image_folders) struct image_folders *folders = NULL;
    CLEANUP(cleanup_free) struct image_layers *layers = malloc(sizeof(*layers));
    struct disk_image_name looked_at = *name;

    if (layers == NULL)
        return err_new(ERR_NO_MEMORY, "list layers");
    looked_at.access = DISK_IMAGE_READ_ONLY;
    TRY(image_folders_create(name->path, name->folders, name->folder_count, &folders));
    TRY(image_chain_find(&looked_at, folders, IMAGE_LAYER_UNLOCKED, layers));
    struct err *err = describe_all(layers, out_list);
    image_layers_close(layers);
    return err;
}

void layer_list_finish(struct layer_list *list)
{
    for (unsigned i = 0; i < list->count && list->layers != NULL; i++)
        free(list->layers[i].path);
    free(list->layers);
    *list = (struct layer_list){0};
}

struct err *layer_stands_for(const char *path, const char *format, uint64_t file_bytes,
                             bool *out_stands)
{
    struct qcow_predecessors predecessors = {.count = 0};
    uint64_t now_bytes = 0;
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_errno(errno, "look at '%s'", path);
    TRY(file_size(fd, path, &now_bytes));
    *out_stands = now_bytes == file_bytes;
    if (*out_stands || strcmp(format, "qcow2") != 0)
        return NULL;
    TRY(qcow_predecessors_read(fd, path, &predecessors));
    for (unsigned i = 0; i < predecessors.count; i++)
        *out_stands = *out_stands || predecessors.sizes[i] == file_bytes;
    return NULL;
}

static struct err *look_for_content(struct block *block, bool *out_is_unwritten)
{
    enum qcow_presence presence = QCOW_PRESENCE_NONE;

    for (uint64_t at = 0, bytes = 0; at < block->virtual_bytes; at += bytes) {
        TRY(qcow_image_presence(block, at, block->virtual_bytes - at, &presence, &bytes));
        if (presence != QCOW_PRESENCE_NONE)
            break;
    }
    *out_is_unwritten = presence == QCOW_PRESENCE_NONE;
    return NULL;
}

struct err *layer_is_unwritten(const char *path, bool *out_is_unwritten)
{
    struct image_layer layer;

    TRY(image_layer_open(path, "qcow2", DISK_IMAGE_READ_ONLY,
                         (struct image_layer_use){.locking = IMAGE_LAYER_UNLOCKED}, &layer));
    struct err *err = look_for_content(layer.block, out_is_unwritten);
    if (err == NULL && qcow_image_header(layer.block)->snapshot_count > 0)
        *out_is_unwritten = false;
    err_free(block_close(layer.block)); /* read-only: nothing is lost */
    return err;
}
