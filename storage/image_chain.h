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
#include "storage/disk_image.h"
#include "storage/image_layer.h"

struct image_folders;
struct layer_stack;

struct image_chain {
    struct image_layer top;    /* its block is owned, and owns the rest */
    struct layer_stack *stack; /* the top's backing block; NULL: it has none */
};

/* The layers below the first are read-only, lie in the given folders and, if locked, are held as a
 * reader. */
ERR_RESULT image_chain_open(const struct disk_image_name *name, const struct image_folders *folders,
                            enum image_layer_locking locking, struct image_chain *out_chain);

#endif
