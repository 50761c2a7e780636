/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_tracking.h - the named trackers of a disk, each a file web.NAME.changes beside the image.
 *
 * Thread: loop only, while no request runs.
 */
#ifndef VMM_MACHINE_DISK_TRACKING_H
#define VMM_MACHINE_DISK_TRACKING_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/machine.pb-c.h"
#include "storage/block.h"
#include "storage/block_tracked.h"

struct dirty_blocks;

struct disk_tracking {
    struct dirty_blocks *trackers[BLOCK_TRACKERS_MAX]; /* owned */
    size_t count;
    struct block *block; /* owned; around the disk. NULL: nothing is tracked */
};

/* ERR_INVALID unless the names are few, different and can be part of a file's name. */
ERR_RESULT disk_tracking_check(const Ferry__DiskConfig *config);

/* The disk is open; modified_ns is what dirty_blocks_modified_ns said before. */
ERR_RESULT disk_tracking_start(const Ferry__DiskConfig *config, struct block *disk,
                               int64_t modified_ns, struct disk_tracking *out_tracking);

/* The disk goes on in another image. */
void disk_tracking_follow(struct disk_tracking *tracking, const char *image_path);

/* The disk has been closed. Accepts a zeroed one. */
void disk_tracking_stop(struct disk_tracking *tracking);

/* Changes until here become a copy's; see dirty_blocks_begin. */
ERR_RESULT disk_tracking_begin(struct disk_tracking *tracking, const Ferry__DiskConfig *config,
                               const char *name);

#endif
