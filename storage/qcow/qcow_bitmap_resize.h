/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_resize.h - an image's bitmaps while its disk becomes another as a whole: of another
 * size, or what a snapshot holds.
 *
 * A bitmap's table is as long as the disk, so it can not stand in the file meanwhile. The bitmaps
 * are taken out and put back; a power cut in between leaves the image without any. Thread: any that
 * may block, alone with the image.
 */
#ifndef STORAGE_QCOW_QCOW_BITMAP_RESIZE_H
#define STORAGE_QCOW_QCOW_BITMAP_RESIZE_H

#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_bitmap.h"

/* Out of the file, into *out_set, which the caller finishes. ERR_STATE, with nothing changed: one
 * of them can not be relied on, or would be too large for a disk of virtual_bytes. */
ERR_RESULT qcow_bitmap_set_take_out(struct host_file *file, uint64_t virtual_bytes,
                                    struct qcow_bitmap_set *out_set);

/* Fits them to the disk as the file's header says it is by now, and makes them the image's again.
 * All bytes from `changed_from` on are said to have changed. */
ERR_RESULT qcow_bitmap_set_put_back(struct host_file *file, struct qcow_bitmap_set *set,
                                    uint64_t changed_from);

#endif
