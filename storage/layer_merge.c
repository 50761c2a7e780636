/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_merge.c - see layer_merge.h.
 *
 * The new file is an overlay of what is below the merged layers, so that what it holds in part is
 * filled up from there. Zeros that a layer holds are kept as such: they may hide what lies below.
 */
#include "storage/layer_merge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/test_hook.h"
#include "storage/image_chain.h"
#include "storage/image_folders.h"
#include "storage/image_lock.h"
#include "storage/layer_stack.h"
#include "storage/overlay_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_predecessors.h"

#define CHUNK_BYTES MIB

struct merge {
    const struct disk_image_name *newest;
    unsigned count;
    struct layer_merge_watch *watch;

    struct image_folders *folders; /* owned */
    struct image_layers layers;    /* owned; the newest first */
    struct stat status;            /* of the newest */
    struct qcow_predecessors predecessors;
    char *format_below;      /* owned; and its name as the merged layer will say it: */
    char *name_below;        /* owned */
    struct layer_stack *all; /* owned: those that are merged */
    char *temp_path;         /* owned */
    int temp_fd;             /* owned; -1: none that is ours */
    struct block *merged;    /* owned, with what is below it */
    struct layer_merge_result result;
};

static struct err *check_layer(const struct image_layer *layer)
{
    if (!layer->is_qcow)
        return err_new(ERR_INVALID,
                       "layer '%s' is not a qcow2 image, which it must be to be merged",
                       layer->path);
    const struct qcow_header *header = qcow_image_header(layer->block);
    if (header->snapshot_count > 0)
        return err_new(ERR_STATE,
                       "layer '%s' has snapshots inside, which a merge would lose: %u of them",
                       layer->path, header->snapshot_count);
    if (qcow_header_has_bitmaps(header))
        return err_new(ERR_STATE, "layer '%s' has bitmaps, which a merge would lose", layer->path);
    return image_layer_check_sealed(layer);
}

static struct err *check_layers(struct merge *merge)
{
    const struct image_layer *newest = &merge->layers.list[0];

    if (merge->count < 2 || merge->count >= merge->layers.count)
        return err_new(ERR_INVALID,
                       "'%s' has %u layers below it, and the lowest is not merged: %u can not be "
                       "made one",
                       newest->path, merge->layers.count - 1, merge->count);
    for (unsigned i = 0; i < merge->count; i++)
        TRY(check_layer(&merge->layers.list[i]));
    if (fstat(newest->fd, &merge->status) != 0)
        return err_errno(errno, "look at '%s'", newest->path);
    TRY(qcow_predecessors_read(newest->fd, newest->path, &merge->predecessors));
    if (merge->predecessors.count == QCOW_PREDECESSORS_MAX)
        return err_new(ERR_STATE, "layer '%s' was merged %u times, which is the most", newest->path,
                       QCOW_PREDECESSORS_MAX);
    merge->predecessors.sizes[merge->predecessors.count++] = (uint64_t)merge->status.st_size;
    return NULL;
}

/* Opens what is merged, with what is below it, as readers. */
static struct err *open_layers(struct merge *merge)
{
    struct disk_image_name name = *merge->newest;

    name.access = DISK_IMAGE_READ_ONLY;
    TRY(image_folders_create(name.path, name.folders, name.folder_count, &merge->folders));
    TRY(image_chain_find(&name, merge->folders, IMAGE_LAYER_LOCKED, &merge->layers));
    TRY(check_layers(merge));
    const struct image_layer *below = &merge->layers.list[merge->count];
    const struct image_layer *oldest = &merge->layers.list[merge->count - 1];
    merge->format_below = strdup(qcow_image_header(oldest->block)->backing_format);
    if (merge->format_below == NULL)
        return err_new(ERR_NO_MEMORY, "layers");
    TRY(overlay_file_backing_name(name.path, below->path, &merge->name_below));
    return image_layers_stack(&merge->layers, 0, merge->count - 1, &merge->all);
}

/* Takes the lock of the temporary file and looks whether it still has its name: before, it may have
 * become the layer, or been removed by another who merges. */
static struct err *own_temp(const struct merge *merge, int fd)
{
    struct stat held, named;

    TRY(image_lock_take(fd, merge->temp_path, IMAGE_LOCK_WRITER));
    if (fstat(fd, &held) != 0 || stat(merge->temp_path, &named) != 0 ||
        !file_is_same(&held, &named))
        return err_new(ERR_DENIED, "another merge into '%s' is at work", merge->newest->path);
    return NULL;
}

/* One without an owner was left by a crash. */
static struct err *remove_leftover(const struct merge *merge)
{
    CLEANUP(cleanup_fd) int fd = open(merge->temp_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 && errno == ENOENT)
        return NULL;
    if (fd < 0)
        return err_errno(errno, "look at '%s'", merge->temp_path);
    TRY(own_temp(merge, fd));
    if (unlink(merge->temp_path) != 0)
        return err_errno(errno, "remove '%s'", merge->temp_path);
    return NULL;
}

static struct err *create_temp(struct merge *merge)
{
    if (asprintf(&merge->temp_path, "%s" OVERLAY_FILE_MERGING_SUFFIX, merge->newest->path) < 0)
        return err_new(ERR_NO_MEMORY, "merge");
    TRY(remove_leftover(merge));
    CLEANUP(cleanup_fd)
    int fd = open(merge->temp_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(errno, "create '%s'", merge->temp_path);
    TRY(own_temp(merge, fd));
    merge->temp_fd = TAKE_FD(fd);
    return NULL;
}

static struct err *duplicate(const struct merge *merge, int *out_fd)
{
    *out_fd = fcntl(merge->temp_fd, F_DUPFD_CLOEXEC, 0);
    return *out_fd >= 0 ? NULL : err_errno(errno, "create '%s'", merge->temp_path);
}

static struct err *make_image(struct merge *merge)
{
    struct image_layer layer;
    struct layer_stack *below;
    int fd = -1;

    TRY(create_temp(merge));
    TRY(duplicate(merge, &fd));
    TRY(overlay_file_fill(fd, merge->temp_path,
                          &(struct overlay_content){
                              .backing_name = merge->name_below,
                              .backing_format = merge->format_below,
                              .virtual_bytes = layer_stack_block(merge->all)->virtual_bytes,
                          }));
    TRY(duplicate(merge, &fd));
    TRY(image_layer_from_fd(fd, merge->temp_path, "qcow2", DISK_IMAGE_WRITABLE,
                            (struct image_layer_use){.locking = IMAGE_LAYER_UNLOCKED}, &layer));
    merge->merged = layer.block;
    TRY(image_layers_stack(&merge->layers, merge->count, merge->layers.count - 1, &below));
    qcow_image_set_backing(merge->merged, layer_stack_block(below));
    return NULL;
}

static struct err *copy_run(struct merge *merge, uint8_t *buffer, enum qcow_presence presence,
                            uint64_t offset, uint64_t len)
{
    struct iovec iov = {buffer, len};

    if (presence == QCOW_PRESENCE_ZERO)
        return block_write_zeroes(merge->merged, offset, len, true);
    TRY(block_read(layer_stack_block(merge->all), &iov, 1, offset));
    merge->result.copied_bytes += len;
    return block_write(merge->merged, &iov, 1, offset);
}

static struct err *copy(struct merge *merge)
{
    uint64_t total = merge->merged->virtual_bytes;
    CLEANUP(cleanup_free) uint8_t *buffer = malloc(CHUNK_BYTES);
    if (buffer == NULL)
        return err_new(ERR_NO_MEMORY, "merge");

    for (uint64_t at = 0; at < total;) {
        enum qcow_presence presence;
        uint64_t bytes = 0;
        TRY(layer_stack_presence(merge->all, at, MIN(CHUNK_BYTES, total - at), &presence, &bytes));
        if (presence != QCOW_PRESENCE_NONE)
            TRY(copy_run(merge, buffer, presence, at, bytes));
        at += bytes;
        if (merge->watch != NULL && !merge->watch->go_on(merge->watch, at, total))
            return err_new(ERR_CANCELLED, "the merge was cancelled");
    }
    test_hook("merge copy");
    return NULL;
}

/* Complete, with the old layer's looks, and durable. */
static struct err *finish_file(struct merge *merge)
{
    const struct timespec times[2] = {merge->status.st_atim, merge->status.st_mtim};
    const struct stat *old = &merge->status;
    struct stat status;
    int fd = merge->temp_fd;

    TRY(qcow_image_seal(merge->merged));
    TRY(block_close(TAKE_PTR(merge->merged)));
    TRY(qcow_predecessors_write(fd, merge->temp_path, &merge->predecessors));
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "look at '%s'", merge->temp_path);
    merge->result.file_bytes = (uint64_t)status.st_blocks * 512;
    bool has_owner = status.st_uid == old->st_uid && status.st_gid == old->st_gid;
    if (!has_owner && fchown(fd, old->st_uid, old->st_gid) != 0)
        return err_errno(errno, "give '%s' to its owner", merge->temp_path);
    if (fchmod(fd, old->st_mode & ALLPERMS) != 0 || futimens(fd, times) != 0 || fsync(fd) != 0)
        return err_errno(errno, "finish '%s'", merge->temp_path);
    test_hook("merge finish");
    return NULL;
}

/* The newest layer may have been merged by somebody else since it was opened. */
static struct err *check_unchanged(const struct merge *merge)
{
    struct stat named;

    if (stat(merge->newest->path, &named) != 0)
        return err_errno(errno, "look at '%s'", merge->newest->path);
    if (!file_is_same(&named, &merge->status))
        return err_new(ERR_STATE, "'%s' became another file meanwhile", merge->newest->path);
    return NULL;
}

static struct err *rename_over(struct merge *merge)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(check_unchanged(merge));
    TRY(folder_of(merge->newest->path, &folder));
    if (rename(merge->temp_path, merge->newest->path) != 0)
        return err_errno(errno, "rename '%s'", merge->temp_path);
    cleanup_fd(&merge->temp_fd);
    merge->temp_fd = -1; /* the layer's from here on */
    test_hook("merge rename");
    return folder_sync(folder);
}

static struct err *run(struct merge *merge)
{
    TRY(open_layers(merge));
    TRY(make_image(merge));
    TRY(copy(merge));
    TRY(finish_file(merge));
    return rename_over(merge);
}

static void release(struct merge *merge)
{
    if (merge->merged != NULL)
        err_free(block_close(merge->merged));
    if (merge->all != NULL)
        err_free(block_close(layer_stack_block(merge->all)));
    image_layers_close(&merge->layers);
    if (merge->temp_fd >= 0) {
        (void)unlink(merge->temp_path);
        (void)close(merge->temp_fd);
    }
    image_folders_destroy(merge->folders);
    free(merge->temp_path);
    free(merge->name_below);
    free(merge->format_below);
}

struct err *layer_merge(const struct disk_image_name *newest, unsigned count,
                        struct layer_merge_watch *watch, struct layer_merge_result *out_result)
{
    struct merge merge = {.newest = newest, .count = count, .watch = watch, .temp_fd = -1};

    struct err *err = run(&merge);
    release(&merge);
    if (err != NULL)
        return err_wrap(err, "merge %u layers into '%s'", count, newest->path);
    *out_result = merge.result;
    return NULL;
}
