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
#include "base/file_io.h"
#include "base/limits.h"
#include "storage/image_folders.h"
#include "storage/layer_stack.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"

/* The files of the layers so far. */
struct seen {
    struct stat files[DISK_BACKING_DEPTH_MAX + 1];
    unsigned count;
};

static struct err *note_seen(struct seen *seen, int fd, const char *path)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return err_errno(errno, "open image '%s'", path);
    for (unsigned i = 0; i < seen->count; i++)
        if (file_is_same(&seen->files[i], &status))
            return err_new(ERR_INVALID, "image '%s' is its own backing file", path);
    seen->files[seen->count++] = status;
    return NULL;
}

/* Opens what `above` is based on. */
static struct err *open_below(const struct image_layer *above, const struct image_folders *folders,
                              struct image_layer_use use, struct image_layer *out_layer)
{
    const struct qcow_header *header = qcow_image_header(above->block);
    CLEANUP(cleanup_free) char *path = NULL;
    int fd = -1;

    if (header->backing_format[0] == '\0')
        return err_new(ERR_INCOMPATIBLE,
                       "image '%s' does not say which format its backing file has, and formats are "
                       "never guessed; say it with 'qemu-img rebase -u -F FORMAT -b BACKING IMAGE'",
                       above->path);
    struct err *err = image_folders_open(folders, above->path, header->backing_name, &fd, &path);
    if (err == NULL)
        err = image_layer_from_fd(fd, path, header->backing_format, DISK_IMAGE_READ_ONLY, use,
                                  out_layer);
    if (err != NULL)
        return err_wrap(err, "backing file of '%s'", above->path);
    return NULL;
}

static struct err *find_below(const struct image_folders *folders, struct image_layer_use use,
                              struct image_layers *layers)
{
    struct seen seen = {.count = 0};

    for (;;) {
        const struct image_layer *above = &layers->list[layers->count - 1];
        TRY(note_seen(&seen, above->fd, above->path));
        if (!above->is_qcow || qcow_image_header(above->block)->backing_name[0] == '\0')
            return NULL;
        if (layers->count > DISK_BACKING_DEPTH_MAX)
            return err_new(ERR_INVALID,
                           "image '%s' has more than %u backing files below each other; run the "
                           "machine on a flat copy ('vm-disk convert')",
                           layers->list[0].path, DISK_BACKING_DEPTH_MAX);
        TRY(open_below(above, folders, use, &layers->list[layers->count]));
        layers->count++;
    }
}

struct err *image_chain_find(const struct disk_image_name *name,
                             const struct image_folders *folders, enum image_layer_locking locking,
                             struct image_layers *out_layers)
{
    const struct image_layer_use use = {.locking = locking, .cache = name->cache};

    TRY(image_layer_open(name->path, name->format, name->access, use, &out_layers->list[0]));
    out_layers->count = 1;
    struct err *err = find_below(folders, use, out_layers);
    if (err != NULL)
        image_layers_close(out_layers);
    return err;
}

void image_layers_close(struct image_layers *layers)
{
    for (unsigned i = 0; i < layers->count; i++)
        if (layers->list[i].block != NULL)
            err_free(block_close(TAKE_PTR(layers->list[i].block))); /* nothing was written */
    layers->count = 0;
}

struct err *image_layers_stack(struct image_layers *layers, unsigned newest, unsigned oldest,
                               struct layer_stack **out_stack)
{
    struct layer_stack *stack = NULL;

    TRY(layer_stack_create(&stack));
    for (unsigned i = oldest + 1; i-- > newest;) {
        struct err *err = layer_stack_push(stack, &layers->list[i]);
        if (err != NULL) {
            err_free(block_close(layer_stack_block(stack)));
            return err;
        }
        layers->list[i].block = NULL;
    }
    *out_stack = stack;
    return NULL;
}

struct err *image_chain_open(const struct disk_image_name *name,
                             const struct image_folders *folders, enum image_layer_locking locking,
                             struct image_chain *out_chain)
{
    struct image_chain chain = {.stack = NULL};
    struct image_layers layers;

    TRY(image_chain_find(name, folders, locking, &layers));
    struct err *err =
        layers.count > 1 ? image_layers_stack(&layers, 1, layers.count - 1, &chain.stack) : NULL;
    if (err != NULL) {
        image_layers_close(&layers);
        return err;
    }
    chain.top = layers.list[0];
    if (chain.stack != NULL)
        qcow_image_set_backing(chain.top.block, layer_stack_block(chain.stack));
    *out_chain = chain;
    return NULL;
}
