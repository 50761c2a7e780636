/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_map.h - which layer of a chain holds a range, how, and where: for programs that show, copy
 * or serve an image without reading what is not there.
 *
 * Walks the chain from the top for each answer. Thread: any.
 */
#ifndef STORAGE_IMAGE_MAP_H
#define STORAGE_IMAGE_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/image_chain.h"

enum image_extent_kind {
    IMAGE_EXTENT_NONE, /* in no layer: reads as zeros */
    IMAGE_EXTENT_ZERO, /* zeros, by a layer's tables or as a hole of its file */
    IMAGE_EXTENT_DATA,
};

struct image_extent {
    enum image_extent_kind kind;
    unsigned depth; /* of the layer that says so, 0 the top; NONE: of the lowest */
    bool is_compressed;
    bool has_offset;
    uint64_t host_offset; /* in the layer's file */
    uint64_t bytes;
};

/* How many layers there are, and one of them by its depth, 0 the top. */
unsigned image_chain_depth(const struct image_chain *chain);
const struct image_layer *image_chain_layer(const struct image_chain *chain, unsigned depth);

/* The extent that starts at `offset`, at most `len` bytes. The range lies within the disk and is
 * not empty. */
ERR_RESULT image_chain_map(const struct image_chain *chain, uint64_t offset, uint64_t len,
                           struct image_extent *out_extent);

#endif
