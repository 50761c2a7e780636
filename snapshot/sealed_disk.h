/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sealed_disk.h - the disk layers that a snapshot refers to: recognised by size and modification
 * time, which copies that keep times (rsync -a, cp -p) keep too. A layer that was merged with
 * others keeps its time and notes the size that it had. Thread: any.
 */
#ifndef SNAPSHOT_SEALED_DISK_H
#define SNAPSHOT_SEALED_DISK_H

#include <stddef.h>

#include "base/err.h"
#include "proto/snapshot.pb-c.h"

/* Where backing files may lie, beside the folder of the image. */
struct sealed_disk_folders {
    const char *const *paths;
    size_t count;
};

/* Fills file_bytes, modified_ns and layers from the file at disk->path and what it stands on. */
ERR_RESULT sealed_disk_look(Ferry__SnapshotDisk *disk, struct sealed_disk_folders folders);
void sealed_disk_drop_layers(Ferry__SnapshotDisk *disk);

/* ERR_NOT_FOUND when it is missing, ERR_STATE when it or an image that it stands on is not the
 * file that it was, or when it is not sealed any more, or is not a usable image. */
ERR_RESULT sealed_disk_check(const Ferry__SnapshotDisk *disk, struct sealed_disk_folders folders);

#endif
