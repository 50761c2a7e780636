/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_place.h - where in its file an image keeps a range.
 *
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_PLACE_H
#define STORAGE_QCOW_QCOW_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"
#include "storage/qcow/qcow_presence.h"

struct qcow_place {
    enum qcow_presence presence;
    bool is_compressed;
    uint64_t host_offset; /* of data that is not compressed */
    uint64_t bytes;       /* of which all this is true */
};

/* Of the byte at `offset` and of those that follow it in the same way, at most `len`. The range
 * lies within the disk and is not empty. Reads tables, never data. */
ERR_RESULT qcow_image_place(struct block *block, uint64_t offset, uint64_t len,
                            struct qcow_place *out_place);

#endif
