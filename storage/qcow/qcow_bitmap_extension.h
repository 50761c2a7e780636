/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_extension.h - the header extension that says where the directory of bitmaps is.
 *
 * It may lie across sectors, and may have to be made room for. So it is written only while the
 * autoclear bit says that it means nothing, unless it is inside one sector. Thread: any that may
 * block, alone with the image.
 */
#ifndef STORAGE_QCOW_QCOW_BITMAP_EXTENSION_H
#define STORAGE_QCOW_QCOW_BITMAP_EXTENSION_H

#include <stdint.h>

#include "base/err.h"

struct host_file;

struct qcow_bitmap_place {
    uint32_t count;
    uint64_t directory_bytes;
    uint64_t directory_offset;
};

/* ERR_STATE when the header has no room for it. Changes nothing. */
ERR_RESULT qcow_bitmap_extension_check_room(struct host_file *file);

/* What was written before is durable before it is there, and it is durable when this returns.
 * A count of 0: there are no bitmaps. */
ERR_RESULT qcow_bitmap_extension_publish(struct host_file *file,
                                         const struct qcow_bitmap_place *place);

#endif
