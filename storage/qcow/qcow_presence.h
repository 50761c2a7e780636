/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_presence.h - what an image itself holds of a range, whatever lies below it.
 *
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_PRESENCE_H
#define STORAGE_QCOW_QCOW_PRESENCE_H

#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"

enum qcow_presence {
    QCOW_PRESENCE_NONE, /* what lies below shows */
    QCOW_PRESENCE_ZERO,
    QCOW_PRESENCE_DATA, /* plain or compressed */
};

/* Of the byte at `offset`, and of how many bytes from there on, of at most `len`, it is the same.
 * The range lies within the disk and is not empty. Reads tables, never data. */
ERR_RESULT qcow_image_presence(struct block *block, uint64_t offset, uint64_t len,
                               enum qcow_presence *out_presence, uint64_t *out_bytes);

#endif
