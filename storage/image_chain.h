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

/* The layers below the first are read-only, lie in the given folders and, if locked, are held as a
 * reader. */
ERR_RESULT image_chain_open(const struct disk_image_name *name, const struct image_folders *folders,
                            enum image_layer_locking locking, struct image_layer *out_top);

#endif
