/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_track.h - keeps the enabled bitmaps of an image up while it is written.
 *
 * The first change marks them in use on disk, durably, before it is made: until they are saved, a
 * bitmap does not show what was written, so nobody may rely on it. Saving, when the image is closed
 * or sealed, writes them anew. Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_BITMAP_TRACK_H
#define STORAGE_QCOW_QCOW_BITMAP_TRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"
#include "storage/qcow/qcow_bitmap.h"

struct qcow_image;

struct qcow_bitmap_tracker {
    struct qcow_bitmap_set set; /* all of the image's; those that are enabled are kept up */
    bool has_enabled;
    bool is_in_use; /* marked on disk, and not saved since */
};

/* When a writable image is opened. */
ERR_RESULT qcow_bitmap_track_load(struct qcow_image *image);
void qcow_bitmap_track_finish(struct qcow_image *image); /* accepts a zeroed one */

/* The operations of an image with enabled bitmaps: what changes the disk is noted first. Changes
 * are planned once the bitmaps are marked in use, which waits for the disk: noting them is setting
 * bits in memory then. */
struct err *qcow_bitmap_tracked_write(struct block *block, const struct iovec *iovs, int iov_count,
                                      uint64_t offset);
struct err *qcow_bitmap_tracked_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                       bool may_unmap);
struct err *qcow_bitmap_tracked_discard(struct block *block, uint64_t offset, uint64_t len);

bool qcow_bitmap_tracked_plan(struct block *block, enum block_request_kind kind, uint64_t offset,
                              uint64_t len, struct block_plan *plan);

/* No request is running and nothing waits for a flush. The tables in memory are stale afterwards
 * when *out_has_saved. */
ERR_RESULT qcow_bitmap_track_save(struct qcow_image *image, bool *out_has_saved);

#endif
