/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sealed_disk.c - see sealed_disk.h. Tested by: restore_test.c
 */
#include "snapshot/sealed_disk.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "storage/disk_image.h"
#include "storage/layer_list.h"

static int64_t modified_ns(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * (int64_t)NS_PER_S + (int64_t)status->st_mtim.tv_nsec;
}

struct err *sealed_disk_look(Ferry__SnapshotDisk *disk)
{
    struct stat status;

    if (stat(disk->path, &status) != 0)
        return err_errno(errno, "look at the image '%s' of disk '%s'", disk->path, disk->id);
    disk->file_bytes = (uint64_t)status.st_size;
    disk->modified_ns = modified_ns(&status);
    return NULL;
}

struct err *sealed_disk_check(const Ferry__SnapshotDisk *disk, struct sealed_disk_folders folders)
{
    struct disk_image_name name = {.path = disk->path,
                                   .format = disk->format,
                                   .access = DISK_IMAGE_READ_ONLY,
                                   .folders = folders.paths,
                                   .folder_count = folders.count};
    struct stat status;
    uint64_t virtual_bytes = 0;
    bool is_same = false;

    if (stat(disk->path, &status) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_new(ERR_NOT_FOUND, "disk '%s': its image '%s' is missing; put it back", disk->id,
                       disk->path);
    if (stat(disk->path, &status) != 0)
        return err_errno(errno, "disk '%s': look at '%s'", disk->id, disk->path);
    if (modified_ns(&status) == disk->modified_ns)
        TRY(layer_stands_for(disk->path, disk->format, disk->file_bytes, &is_same));
    if (!is_same)
        return err_new(ERR_STATE,
                       "disk '%s': its image '%s' was altered after the snapshot (size or "
                       "modification time); put the original back",
                       disk->id, disk->path);
    if (!disk->read_only && (status.st_mode & 0222) != 0)
        return err_new(ERR_STATE,
                       "disk '%s': its image '%s' is not sealed any more: somebody made it "
                       "writable; if its content is the original, chmod a-w it",
                       disk->id, disk->path);
    TRY(disk_image_check_named(&name, &virtual_bytes));
    if (virtual_bytes != disk->virtual_bytes)
        return err_new(ERR_STATE, "disk '%s': its image '%s' has %llu bytes instead of %llu",
                       disk->id, disk->path, (unsigned long long)virtual_bytes,
                       (unsigned long long)disk->virtual_bytes);
    return NULL;
}
