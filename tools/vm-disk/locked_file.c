/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locked_file.c - see locked_file.h. Tested by: tests/disk
 */
#include "tools/vm-disk/locked_file.h"

#include "base/cleanup.h"
#include "storage/host_file.h"
#include "storage/image_layer.h"

struct err *locked_file_open(const char *path, enum disk_image_access access,
                             struct host_file **out_file)
{
    CLEANUP(cleanup_fd) int fd = -1;

    TRY(image_layer_open_file(path, access, &fd));
    TRY(image_layer_lock(fd, path, access));
    return host_file_from_fd(TAKE_FD(fd), path, out_file);
}
