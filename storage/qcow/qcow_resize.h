/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_resize.h - makes the disk in a qcow2 image larger or smaller.
 *
 * Thread: any that may block; no request is running.
 */
#ifndef STORAGE_QCOW_QCOW_RESIZE_H
#define STORAGE_QCOW_QCOW_RESIZE_H

#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"

/* Of a writable qcow2 block with its backing file, if it has one. Whole sectors. What is added
 * reads as zeros; what is cut off is lost, but for what snapshots in the image hold. Durable when
 * it returns. Bitmaps say that what was added has changed; a power cut in the middle leaves none.
 * After an error the disk has the old size or the new; if even reading the image again
 * failed, it is read-only and has no bytes. */
ERR_RESULT qcow_image_resize(struct block *block, uint64_t virtual_bytes);

#endif
