/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_place.c - see qcow_place.h.
 * Tested by: image_map_test.c
 */
#include "storage/qcow/qcow_place.h"

#include "base/assert.h"
#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_map.h"

static struct qcow_place place_of(const struct qcow_extent *extent)
{
    struct qcow_place place = {.presence = QCOW_PRESENCE_DATA, .bytes = extent->bytes};

    switch (extent->kind) {
    case QCOW_KIND_UNALLOCATED: place.presence = QCOW_PRESENCE_NONE; break;
    case QCOW_KIND_ZERO: place.presence = QCOW_PRESENCE_ZERO; break;
    case QCOW_KIND_DATA: place.host_offset = extent->host_offset; break;
    case QCOW_KIND_COMPRESSED: place.is_compressed = true; break;
    }
    return place;
}

/* Does `next` go on where `place` ends? */
static bool continues(const struct qcow_place *place, const struct qcow_place *next)
{
    bool has_offset = place->presence == QCOW_PRESENCE_DATA && !place->is_compressed;

    return next->presence == place->presence && next->is_compressed == place->is_compressed &&
           (!has_offset || next->host_offset == place->host_offset + place->bytes);
}

static struct err *place_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                struct qcow_place *out_place) REQUIRES(&image->lock)
{
    struct qcow_extent extent;

    TRY(qcow_map_lookup_locked(image, offset, len, QCOW_COUNTS_NONE, &extent));
    struct qcow_place place = place_of(&extent);
    while (place.bytes < len) {
        TRY(qcow_map_lookup_locked(image, offset + place.bytes, len - place.bytes, QCOW_COUNTS_NONE,
                                   &extent));
        struct qcow_place next = place_of(&extent);
        if (!continues(&place, &next))
            break;
        place.bytes += next.bytes;
    }
    *out_place = place;
    return NULL;
}

struct err *qcow_image_place(struct block *block, uint64_t offset, uint64_t len,
                             struct qcow_place *out_place)
{
    struct qcow_image *image = qcow_image_of(block);

    ASSERT(len > 0 && range_is_within(offset, len, block->virtual_bytes));
    lock_acquire(&image->lock);
    struct err *err = place_locked(image, offset, len, out_place);
    lock_release(&image->lock);
    return err;
}
