/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_chain.c - see image_chain.h.
 * Tested by: disk_image_test.c
 */
#include "storage/image_chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/image_folders.h"
#include "storage/layer_stack.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"

/* The files of the layers so far. */
struct seen {
    dev_t devices[DISK_BACKING_DEPTH_MAX + 1];
    ino_t inodes[DISK_BACKING_DEPTH_MAX + 1];
    unsigned count;
};

static struct err *note_seen(struct seen *seen, int fd, const char *path)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return err_errno(errno, "open image '%s'", path);
    for (unsigned i = 0; i < seen->count; i++)
        if (seen->devices[i] == status.st_dev && seen->inodes[i] == status.st_ino)
            return err_new(ERR_INVALID, "image '%s' is its own backing file", path);
    seen->devices[seen->count] = status.st_dev;
    seen->inodes[seen->count] = status.st_ino;
    seen->count++;
    return NULL;
}

/* Opens what `above` is based on. */
static struct err *open_below(const struct image_layer *above, const char *above_path,
                              const struct image_folders *folders, enum image_layer_locking locking,
                              struct image_layer *out_layer, char **out_path)
{
    const struct qcow_header *header = qcow_image_header(above->block);
    CLEANUP(cleanup_free) char *path = NULL;
    int fd = -1;

    if (header->backing_format[0] == '\0')
        return err_new(ERR_INCOMPATIBLE,
                       "image '%s' does not say which format its backing file has, and formats are "
                       "never guessed; say it with 'qemu-img rebase -u -F FORMAT -b BACKING IMAGE'",
                       above_path);
    struct err *err = image_folders_open(folders, above_path, header->backing_name, &fd, &path);
    if (err == NULL)
        err = image_layer_from_fd(fd, path, header->backing_format, DISK_IMAGE_READ_ONLY, locking,
                                  out_layer);
    if (err != NULL)
        return err_wrap(err, "backing file of '%s'", above_path);
    *out_path = TAKE_PTR(path);
    return NULL;
}

/* Layers below the top, the newest first, as they are found. */
struct found {
    struct image_layer layers[DISK_BACKING_DEPTH_MAX];
    unsigned count;
};

static struct err *find_rest(const struct image_layer *top, const char *top_path,
                             const struct image_folders *folders, enum image_layer_locking locking,
                             struct found *found)
{
    struct seen seen = {.count = 0};
    const struct image_layer *above = top;
    CLEANUP(cleanup_free) char *path = strdup(top_path);
    if (path == NULL)
        return err_new(ERR_NO_MEMORY, "open image '%s'", top_path);

    TRY(note_seen(&seen, above->fd, path));
    while (above->is_qcow && qcow_image_header(above->block)->backing_name[0] != '\0') {
        char *below_path = NULL;
        if (found->count == DISK_BACKING_DEPTH_MAX)
            return err_new(ERR_INVALID,
                           "image '%s' has more than %u backing files below each other; merge "
                           "some ('vm-disk layers merge'), or run the machine on a flat copy",
                           top_path, DISK_BACKING_DEPTH_MAX);
        TRY(open_below(above, path, folders, locking, &found->layers[found->count], &below_path));
        above = &found->layers[found->count++];
        free(path);
        path = below_path;
        TRY(note_seen(&seen, above->fd, path));
    }
    return NULL;
}

/* The stack takes the layers over, the lowest first. */
static struct err *stack_up(struct found *found, struct layer_stack **out_stack)
{
    struct layer_stack *stack = NULL;

    TRY(layer_stack_create(&stack));
    while (found->count > 0) {
        struct err *err = layer_stack_push(stack, &found->layers[found->count - 1]);
        if (err != NULL) {
            err_free(block_close(layer_stack_block(stack)));
            return err;
        }
        found->count--;
    }
    *out_stack = stack;
    return NULL;
}

struct err *image_chain_open(const struct disk_image_name *name,
                             const struct image_folders *folders, enum image_layer_locking locking,
                             struct image_chain *out_chain)
{
    struct image_chain chain = {.stack = NULL};
    struct found found = {.count = 0};

    TRY(image_layer_open(name->path, name->format, name->access, locking, &chain.top));
    struct err *err = find_rest(&chain.top, name->path, folders, locking, &found);
    if (err == NULL && found.count > 0)
        err = stack_up(&found, &chain.stack);
    if (err != NULL) {
        while (found.count > 0)
            err_free(block_close(found.layers[--found.count].block));
        err_free(block_close(chain.top.block)); /* nothing was written through it */
        return err;
    }
    if (chain.stack != NULL)
        qcow_image_set_backing(chain.top.block, layer_stack_block(chain.stack));
    *out_chain = chain;
    return NULL;
}
