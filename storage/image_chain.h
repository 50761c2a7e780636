/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_chain.h - an image with everything that it is based on.
 *
 * Names and formats of backing files come from the header of the image above, never from what
 * they contain.
 */
#ifndef STORAGE_IMAGE_CHAIN_H
#define STORAGE_IMAGE_CHAIN_H

#include "base/err.h"
#include "base/limits.h"
#include "storage/disk_image.h"
#include "storage/image_layer.h"

struct image_folders;
struct layer_stack;

struct image_chain {
    struct image_layer top;    /* its block is owned, and owns the rest */
    struct layer_stack *stack; /* the top's backing block; NULL: it has none */
};

/* An image and what it is based on, each on its own: the newest first. */
struct image_layers {
    struct image_layer list[DISK_BACKING_DEPTH_MAX + 1]; /* block NULL: taken out */
    unsigned count;
};

/* The layers below the first are read-only, lie in the given folders and, if locked, are held as a
 * reader. */
ERR_RESULT image_chain_open(const struct disk_image_name *name, const struct image_folders *folders,
                            enum image_layer_locking locking, struct image_chain *out_chain);

/* The same, unconnected. */
ERR_RESULT image_chain_find(const struct disk_image_name *name, const struct image_folders *folders,
                            enum image_layer_locking locking, struct image_layers *out_layers);
void image_layers_close(struct image_layers *layers); /* all that were not taken out */

/* A stack of the layers at [newest, oldest], which it takes out of the list. */
ERR_RESULT image_layers_stack(struct image_layers *layers, unsigned newest, unsigned oldest,
                              struct layer_stack **out_stack);

#endif
