/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_image.c - see disk_image.h.
 *
 * A disk image stays the same block for whoever uses it; what it passes requests on to changes:
 * the newest layer after a switch, nothing while the disk is handed over.
 */
#include "storage/disk_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "storage/image_chain.h"
#include "storage/image_folders.h"
#include "storage/image_layer.h"
#include "storage/image_lock.h"
#include "storage/layer_stack.h"
#include "storage/overlay_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"

struct disk_image {
    struct block base;
    struct image_layer layer;  /* the newest; its block is owned, NULL while handed over */
    struct layer_stack *stack; /* what that block is based on; NULL: nothing */
    char *path;                /* owned; of the newest layer */
    char *format;              /* owned */
    enum disk_image_access access;
    struct image_layer_use use;    /* of every layer */
    struct image_folders *folders; /* owned; where layers may lie */
    struct image_layer next;       /* prepared for a switch; its block is owned, NULL: none */
    char *next_path;               /* owned */
};

static struct disk_image *self_of(struct block *block)
{
    return CONTAINER_OF(block, struct disk_image, base);
}

static struct err *check_held(const struct disk_image *self)
{
    if (self->layer.block == NULL)
        return err_new(ERR_STATE, "disk '%s' is handed over; take it back first", self->path);
    return NULL;
}

static struct err *image_read(struct block *block, const struct iovec *iovs, int iov_count,
                              uint64_t offset)
{
    TRY(check_held(self_of(block)));
    return block_read(self_of(block)->layer.block, iovs, iov_count, offset);
}

static struct err *image_write(struct block *block, const struct iovec *iovs, int iov_count,
                               uint64_t offset)
{
    TRY(check_held(self_of(block)));
    return block_write(self_of(block)->layer.block, iovs, iov_count, offset);
}

static struct err *image_flush(struct block *block)
{
    TRY(check_held(self_of(block)));
    return block_flush(self_of(block)->layer.block);
}

static struct err *image_write_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                      bool may_unmap)
{
    TRY(check_held(self_of(block)));
    return block_write_zeroes(self_of(block)->layer.block, offset, len, may_unmap);
}

static struct err *image_discard(struct block *block, uint64_t offset, uint64_t len)
{
    TRY(check_held(self_of(block)));
    return block_discard(self_of(block)->layer.block, offset, len);
}

static bool image_plan(struct block *block, enum block_request_kind kind, uint64_t offset,
                       uint64_t len, struct block_plan *plan)
{
    struct block *newest = self_of(block)->layer.block;

    return newest != NULL && block_plan_append(newest, kind, offset, len, plan);
}

static void drop_next(struct disk_image *self)
{
    if (self->next.block != NULL)
        err_free(block_close(TAKE_PTR(self->next.block))); /* nothing was written to it */
    free(TAKE_PTR(self->next_path));
}

static void image_free(struct disk_image *self)
{
    drop_next(self);
    image_folders_destroy(self->folders);
    free(self->path);
    free(self->format);
    free(self);
}

static struct err *image_close(struct block *block)
{
    struct disk_image *self = self_of(block);
    struct err *err = self->layer.block == NULL ? NULL : block_close(self->layer.block);

    image_free(self);
    return err;
}

static const struct block_ops disk_image_ops = {
    .format = "disk image",
    .read = image_read,
    .write = image_write,
    .flush = image_flush,
    .write_zeroes = image_write_zeroes,
    .discard = image_discard,
    .plan = image_plan,
    .close = image_close,
};

static struct err *open_chain(struct disk_image *self)
{
    struct disk_image_name name = {.path = self->path,
                                   .format = self->format,
                                   .access = self->access,
                                   .cache = self->use.cache};
    struct image_chain chain;

    TRY(image_chain_open(&name, self->folders, self->use.locking, &chain));
    self->layer = chain.top;
    self->stack = chain.stack;
    self->base.virtual_bytes = self->layer.block->virtual_bytes;
    return NULL;
}

static struct err *open_first(struct disk_image *self, const struct disk_image_name *name)
{
    self->path = strdup(name->path);
    self->format = strdup(name->format);
    if (self->path == NULL || self->format == NULL)
        return err_new(ERR_NO_MEMORY, "open disk '%s'", name->path);
    TRY(image_folders_create(name->path, name->folders, name->folder_count, &self->folders));
    return open_chain(self);
}

struct err *disk_image_open_named(const struct disk_image_name *name, struct block **out_block)
{
    struct disk_image *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "open disk '%s'", name->path);

    self->base.ops = &disk_image_ops;
    self->base.is_read_only = name->access == DISK_IMAGE_READ_ONLY;
    self->access = name->access;
    self->use = (struct image_layer_use){.locking = IMAGE_LAYER_LOCKED, .cache = name->cache};
    struct err *err = open_first(self, name);
    if (err != NULL) {
        image_free(self);
        return err;
    }
    *out_block = &self->base;
    return NULL;
}

DEFINE_CLEANUP(image_folders, struct image_folders, image_folders_destroy)

struct err *disk_image_check_named(const struct disk_image_name *name, uint64_t *out_virtual_bytes)
{
    CLEANUP(cleanup_image_folders) struct image_folders *folders = NULL;
    struct disk_image_name looked_at = *name;
    struct image_chain chain;

    looked_at.access = DISK_IMAGE_READ_ONLY;
    TRY(image_folders_create(name->path, name->folders, name->folder_count, &folders));
    TRY(image_chain_open(&looked_at, folders, IMAGE_LAYER_UNLOCKED, &chain));
    uint64_t virtual_bytes = chain.top.block->virtual_bytes;
    struct err *err = name->access == DISK_IMAGE_WRITABLE
                          ? image_layer_check_writable(&chain.top, name->path)
                          : NULL;
    if (err == NULL)
        err = block_close(chain.top.block);
    else
        err_free(block_close(chain.top.block));
    if (err == NULL)
        *out_virtual_bytes = virtual_bytes;
    return err;
}

struct err *disk_image_next_overlay(const char *path, char **out_path)
{
    return overlay_file_next(path, out_path);
}

struct err *disk_image_create_overlay(const char *path, const char *backing_path,
                                      const char *backing_format, uint64_t virtual_bytes)
{
    return overlay_file_create(path, backing_path, backing_format, virtual_bytes);
}

/* The overlay must have been made for exactly this layer. */
static struct err *check_overlay(const struct disk_image *self, const char *path,
                                 const char *overlay_path, const struct image_layer *overlay)
{
    CLEANUP(cleanup_free) char *backing_path = NULL;
    CLEANUP(cleanup_fd) int backing_fd = -1;
    const struct qcow_header *header = qcow_image_header(overlay->block);
    struct stat held, named;

    TRY(image_folders_open(self->folders, overlay_path, header->backing_name, &backing_fd,
                           &backing_path));
    if (fstat(self->layer.fd, &held) != 0)
        return err_errno(errno, "switch disk '%s'", self->path);
    if (fstat(backing_fd, &named) != 0)
        return err_errno(errno, "backing file '%s' of '%s'", backing_path, overlay_path);
    if (!file_is_same(&held, &named) || strcmp(header->backing_format, self->format) != 0)
        return err_new(ERR_INVALID, "overlay '%s' is not one of '%s'", overlay_path, path);
    if (overlay->block->virtual_bytes != self->base.virtual_bytes)
        return err_new(ERR_INVALID, "overlay '%s' is not of the size of '%s'", overlay_path, path);
    return NULL;
}

static unsigned depth_of(const struct disk_image *self)
{
    return self->stack == NULL ? 0 : layer_stack_depth(self->stack);
}

/* The stack that the sealed layer comes onto: the one that it stands on, or the first. */
static struct err *stack_for(struct disk_image *self, struct layer_stack **out_stack)
{
    if (self->stack == NULL)
        return layer_stack_create(out_stack);
    (void)qcow_image_take_backing(self->layer.block);
    *out_stack = self->stack;
    return NULL;
}

/* As it was before. */
static void undo_stack(struct disk_image *self, struct layer_stack *stack)
{
    if (self->stack != NULL)
        qcow_image_set_backing(self->layer.block, layer_stack_block(stack));
    else
        err_free(block_close(layer_stack_block(stack)));
}

static struct err *seal_onto(struct disk_image *self, struct layer_stack *stack)
{
    TRY(layer_stack_push(stack, &self->layer));
    struct err *err = image_layer_seal(&self->layer, self->path);
    if (err != NULL)
        layer_stack_pop(stack);
    return err;
}

/* Takes the strings over on success, so that nothing can fail once the layer is sealed. */
static struct err *switch_to(struct disk_image *self, const struct image_layer *overlay,
                             char **inout_path, char **inout_format)
{
    struct layer_stack *stack;

    TRY(stack_for(self, &stack));
    struct err *err = seal_onto(self, stack);
    if (err != NULL) {
        undo_stack(self, stack);
        return err;
    }
    qcow_image_set_backing(overlay->block, layer_stack_block(stack));
    self->layer = *overlay;
    self->stack = stack;
    free(self->path);
    free(self->format);
    self->path = TAKE_PTR(*inout_path);
    self->format = TAKE_PTR(*inout_format);
    return NULL;
}

struct err *disk_image_check_switch(struct block *block)
{
    struct disk_image *self = self_of(block);

    TRY(check_held(self));
    if (self->access != DISK_IMAGE_WRITABLE)
        return err_new(ERR_STATE, "switch disk '%s': it is not writable", self->path);
    if (depth_of(self) >= DISK_BACKING_DEPTH_MAX)
        return err_new(ERR_STATE,
                       "switch disk '%s': it stands on %u layers, which is the most; saving merges "
                       "them unless it is told not to, and says why where it can not",
                       self->path, depth_of(self));
    return NULL;
}

static struct err *open_next(struct disk_image *self, const char *path, const char *overlay_path)
{
    drop_next(self);
    self->next_path = strdup(overlay_path);
    if (self->next_path == NULL)
        return err_new(ERR_NO_MEMORY, "switch disk '%s'", path);
    TRY(image_layer_open(overlay_path, "qcow2", DISK_IMAGE_WRITABLE, self->use, &self->next));
    return check_overlay(self, path, overlay_path, &self->next);
}

struct err *disk_image_prepare(struct block *block, const char *overlay_path)
{
    struct disk_image *self = self_of(block);
    struct err *err = disk_image_check_switch(block);

    if (err == NULL)
        err = open_next(self, self->path, overlay_path);
    if (err != NULL)
        drop_next(self);
    return err;
}

void disk_image_unprepare(struct block *block)
{
    drop_next(self_of(block));
}

struct err *disk_image_switch(struct block **inout_block, const char *path, const char *format,
                              const char *overlay_path)
{
    struct disk_image *self = self_of(*inout_block);

    TRY(disk_image_check_switch(*inout_block));
    if (strcmp(format, self->format) != 0)
        return err_new(ERR_STATE, "switch disk '%s' to '%s': it is not a %s image", path,
                       overlay_path, format);

    CLEANUP(cleanup_free) char *new_format = strdup("qcow2");
    if (new_format == NULL)
        return err_new(ERR_NO_MEMORY, "switch disk '%s'", path);
    struct err *err = NULL;
    if (self->next.block == NULL || strcmp(self->next_path, overlay_path) != 0)
        err = open_next(self, path, overlay_path);
    if (err == NULL)
        err = switch_to(self, &self->next, &self->next_path, &new_format);
    if (err == NULL)
        self->next.block = NULL;
    drop_next(self); /* after an error, which says why */
    return err;
}

struct err *disk_image_grow(struct block *block, uint64_t virtual_bytes)
{
    struct disk_image *self = self_of(block);

    TRY(check_held(self));
    if (self->access != DISK_IMAGE_WRITABLE)
        return err_new(ERR_STATE, "disk '%s' is not writable", self->path);
    if (virtual_bytes < block->virtual_bytes)
        return err_new(ERR_STATE,
                       "disk '%s' has %llu bytes, and a machine's disk does not become smaller",
                       self->path, (unsigned long long)block->virtual_bytes);
    drop_next(self);
    struct err *err = image_layer_resize(&self->layer, virtual_bytes);
    block->virtual_bytes = self->layer.block->virtual_bytes;
    return err;
}

/* Do both name the same entry of a folder, whatever file that is by now? */
static struct err *is_same_name(const char *a, const char *b, bool *out_is_same)
{
    const char *names[2] = {a, b};
    struct stat status[2];

    for (int i = 0; i < 2; i++) {
        CLEANUP(cleanup_free) char *folder = NULL;
        TRY(folder_of(names[i], &folder));
        if (stat(folder, &status[i]) != 0)
            return err_errno(errno, "folder '%s'", folder);
        names[i] = name_in_folder(names[i]);
    }
    *out_is_same = strcmp(names[0], names[1]) == 0 && file_is_same(&status[0], &status[1]);
    return NULL;
}

/* ERR_NOT_FOUND: no layer has this name. */
static struct err *find_layer(struct layer_stack *stack, const char *path, unsigned *out_place)
{
    for (unsigned place = layer_stack_depth(stack); place-- > 0;) {
        bool is_it = false;
        TRY(is_same_name(layer_stack_layer(stack, place)->path, path, &is_it));
        if (!is_it)
            continue;
        *out_place = place;
        return NULL;
    }
    return err_new(ERR_NOT_FOUND, "'%s' is not a layer of this disk", path);
}

/* Which layers the merged one stands for: from the one above its backing file to its namesake. */
static struct err *find_range(const struct disk_image *self, const struct image_layer *merged,
                              unsigned *out_first, unsigned *out_last)
{
    CLEANUP(cleanup_free) char *backing_path = NULL;
    CLEANUP(cleanup_fd) int backing_fd = -1;
    const struct qcow_header *header = qcow_image_header(merged->block);
    unsigned below = 0;

    TRY(find_layer(self->stack, merged->path, out_last));
    if (header->backing_name[0] == '\0')
        return err_new(ERR_INVALID, "'%s' has no backing file, so it is no merged layer",
                       merged->path);
    TRY(image_folders_open(self->folders, merged->path, header->backing_name, &backing_fd,
                           &backing_path));
    TRY(find_layer(self->stack, backing_path, &below));
    *out_first = below + 1;
    if (below >= *out_last || merged->block->virtual_bytes !=
                                  layer_stack_layer(self->stack, *out_last)->block->virtual_bytes)
        return err_new(ERR_INVALID, "'%s' does not fit in the place of the layer of that name",
                       merged->path);
    return NULL;
}

static struct err *swap_layers(struct disk_image *self, const struct image_layer *merged,
                               unsigned *out_gone)
{
    unsigned first, last;

    TRY(image_layer_check_sealed(merged));
    TRY(find_range(self, merged, &first, &last));
    TRY(layer_stack_replace(self->stack, first, last, merged));
    *out_gone = last - first;
    return NULL;
}

struct err *disk_image_swap_layers(struct block *block, const char *path, unsigned *out_gone)
{
    struct disk_image *self = self_of(block);
    struct image_layer merged;

    TRY(check_held(self));
    if (self->stack == NULL)
        return err_new(ERR_STATE, "disk '%s' has no layers", self->path);
    TRY(image_layer_open(path, "qcow2", DISK_IMAGE_READ_ONLY, self->use, &merged));
    struct err *err = swap_layers(self, &merged, out_gone);
    if (err != NULL)
        err_free(block_close(merged.block)); /* read-only: nothing is lost */
    return err;
}

struct err *disk_image_hand_over(struct block *block)
{
    struct disk_image *self = self_of(block);

    TRY(check_held(self));
    TRY(block_flush(self->layer.block));
    /* Closing the files gives up their locks. */
    drop_next(self);
    self->stack = NULL;
    return block_close(TAKE_PTR(self->layer.block));
}

struct err *disk_image_take_back(struct block *block)
{
    struct disk_image *self = self_of(block);

    if (self->layer.block != NULL)
        return err_new(ERR_STATE, "disk '%s' is not handed over", self->path);
    return open_chain(self);
}
