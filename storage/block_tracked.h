/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_tracked.h - a disk whose changes are noted, for incremental copies and mirrors.
 *
 * Passes everything on, planned requests too. Thread: as block.h says.
 */
#ifndef STORAGE_BLOCK_TRACKED_H
#define STORAGE_BLOCK_TRACKED_H

#include <stddef.h>

#include "base/err.h"
#include "storage/block.h"

struct dirty_blocks;

#define BLOCK_TRACKERS_MAX 4u

/* Neither the disk nor the trackers become its own: they outlive it. */
ERR_RESULT block_tracked_create(struct block *disk, struct dirty_blocks *const *trackers,
                                size_t tracker_count, struct block **out_block);

#endif
