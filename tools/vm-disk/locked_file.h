/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locked_file.h - the file of an image, for commands that work on all of it.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_LOCKED_FILE_H
#define TOOLS_VM_DISK_LOCKED_FILE_H

#include "base/err.h"
#include "storage/disk_image.h"

struct host_file;

/* Nobody else may write meanwhile; who writes is alone, and writes no sealed image. */
ERR_RESULT locked_file_open(const char *path, enum disk_image_access access,
                            struct host_file **out_file);

#endif
