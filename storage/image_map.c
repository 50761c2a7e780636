/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_map.c - see image_map.h.
 */
#include "storage/image_map.h"

#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "storage/layer_stack.h"
#include "storage/qcow/qcow_place.h"

unsigned image_chain_depth(const struct image_chain *chain)
{
    return 1 + (chain->stack == NULL ? 0 : layer_stack_depth(chain->stack));
}

const struct image_layer *image_chain_layer(const struct image_chain *chain, unsigned depth)
{
    ASSERT(depth < image_chain_depth(chain));
    if (depth == 0)
        return &chain->top;
    return layer_stack_layer(chain->stack, layer_stack_depth(chain->stack) - depth);
}

/* Holes of the file; a device, or a file system that knows of none, has data only. */
static struct image_extent map_raw(int fd, uint64_t offset, uint64_t len)
{
    struct image_extent extent = {
        .kind = IMAGE_EXTENT_DATA, .has_offset = true, .host_offset = offset, .bytes = len};
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

    if (data < 0 && errno == ENXIO)
        data = (off_t)(offset + len);
    if (data > (off_t)offset) {
        extent = (struct image_extent){.kind = IMAGE_EXTENT_ZERO,
                                       .bytes = MIN(len, (uint64_t)data - offset)};
    } else if (data == (off_t)offset) {
        off_t hole = lseek(fd, data, SEEK_HOLE);
        if (hole > data)
            extent.bytes = MIN(len, (uint64_t)(hole - data));
    }
    return extent;
}

static struct err *map_qcow(struct block *block, uint64_t offset, uint64_t len,
                            struct image_extent *out_extent)
{
    struct qcow_place place;

    TRY(qcow_image_place(block, offset, len, &place));
    struct image_extent extent = {.bytes = place.bytes};
    switch (place.presence) {
    case QCOW_PRESENCE_NONE: extent.kind = IMAGE_EXTENT_NONE; break;
    case QCOW_PRESENCE_ZERO: extent.kind = IMAGE_EXTENT_ZERO; break;
    case QCOW_PRESENCE_DATA:
        extent.kind = IMAGE_EXTENT_DATA;
        extent.is_compressed = place.is_compressed;
        extent.has_offset = !place.is_compressed;
        extent.host_offset = place.host_offset;
        break;
    }
    *out_extent = extent;
    return NULL;
}

/* One layer's own answer. Behind its end it holds zeros. */
static struct err *map_layer(const struct image_layer *layer, uint64_t offset, uint64_t len,
                             struct image_extent *out_extent)
{
    uint64_t end = layer->block->virtual_bytes;

    if (offset >= end) {
        *out_extent = (struct image_extent){.kind = IMAGE_EXTENT_ZERO, .bytes = len};
        return NULL;
    }
    len = MIN(len, end - offset);
    if (layer->is_qcow)
        return map_qcow(layer->block, offset, len, out_extent);
    *out_extent = map_raw(layer->fd, offset, len);
    return NULL;
}

struct err *image_chain_map(const struct image_chain *chain, uint64_t offset, uint64_t len,
                            struct image_extent *out_extent)
{
    unsigned depth = image_chain_depth(chain);
    struct image_extent extent = {.kind = IMAGE_EXTENT_NONE};

    ASSERT(len > 0 && range_is_within(offset, len, chain->top.block->virtual_bytes));
    for (unsigned i = 0; i < depth && extent.kind == IMAGE_EXTENT_NONE; i++) {
        TRY(map_layer(image_chain_layer(chain, i), offset, len, &extent));
        extent.depth = i;
        len = extent.bytes;
    }
    *out_extent = extent;
    return NULL;
}
