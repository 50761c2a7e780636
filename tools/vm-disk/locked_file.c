/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locked_file.c - see locked_file.h. Tested by: tests/disk
 */
#include "tools/vm-disk/locked_file.h"

#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"
#include "storage/host_file.h"
#include "storage/image_layer.h"

struct err *locked_file_open(const char *path, enum disk_image_access access,
                             struct host_file **out_file)
{
    bool is_writer = access == DISK_IMAGE_WRITABLE;
    CLEANUP(cleanup_fd)
    int fd = open(path, (is_writer ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return err_new(ERR_NOT_FOUND, "there is no image '%s'", path);
    if (fd < 0)
        return err_errno(errno, "open image '%s'", path);
    TRY(image_layer_lock(fd, path, access));
    return host_file_from_fd(TAKE_FD(fd), path, out_file);
}
