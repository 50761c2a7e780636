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

/* The layers below the first are read-only and, if locked, held as a reader. */
ERR_RESULT image_chain_open(const char *path, const char *format, enum disk_image_access access,
                            enum image_layer_locking locking, struct image_layer *out_top);

/* A backing file's path as seen from the working directory; free() it. */
ERR_RESULT image_chain_backing_path(const char *image_path, const char *backing_name,
                                    char **out_path);

#endif
