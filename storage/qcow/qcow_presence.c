/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_presence.c - see qcow_presence.h.
 * Tested by: layer_stack_test.c
 */
#include "storage/qcow/qcow_presence.h"

#include "base/assert.h"
#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_map.h"

static enum qcow_presence presence_of(enum qcow_kind kind)
{
    switch (kind) {
    case QCOW_KIND_UNALLOCATED: return QCOW_PRESENCE_NONE;
    case QCOW_KIND_ZERO: return QCOW_PRESENCE_ZERO;
    case QCOW_KIND_DATA:
    case QCOW_KIND_COMPRESSED: return QCOW_PRESENCE_DATA;
    }
    UNREACHABLE();
}

static struct err *presence_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                   enum qcow_presence *out_presence, uint64_t *out_bytes)
    REQUIRES(&image->lock)
{
    struct qcow_extent extent;

    TRY(qcow_map_lookup_locked(image, offset, len, QCOW_COUNTS_NONE, &extent));
    enum qcow_presence presence = presence_of(extent.kind);
    uint64_t bytes = extent.bytes;
    while (bytes < len) {
        TRY(qcow_map_lookup_locked(image, offset + bytes, len - bytes, QCOW_COUNTS_NONE, &extent));
        if (presence_of(extent.kind) != presence)
            break;
        bytes += extent.bytes;
    }
    *out_presence = presence;
    *out_bytes = bytes;
    return NULL;
}

struct err *qcow_image_presence(struct block *block, uint64_t offset, uint64_t len,
                                enum qcow_presence *out_presence, uint64_t *out_bytes)
{
    struct qcow_image *image = qcow_image_of(block);

    ASSERT(len > 0 && range_is_within(offset, len, block->virtual_bytes));
    lock_acquire(&image->lock);
    struct err *err = presence_locked(image, offset, len, out_presence, out_bytes);
    lock_release(&image->lock);
    return err;
}
