/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locked_file.h - the file of an image, for commands that work on all of it.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_LOCKED_FILE_H
#define TOOLS_VM_DISK_LOCKED_FILE_H

#include "base/err.h"
#include "storage/image_lock.h"

struct host_file;

/* Nobody else may write meanwhile; who writes is alone. */
ERR_RESULT locked_file_open(const char *path, enum image_lock_role role,
                            struct host_file **out_file);

#endif
