/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_lock.h - one byte locks on an image file, the same that QEMU's tools take.
 *
 * They belong to the open file description: closing the last fd gives them up. Thread: any.
 */
#ifndef STORAGE_IMAGE_LOCK_H
#define STORAGE_IMAGE_LOCK_H

#include <stdbool.h>

#include "base/err.h"

enum image_lock_role {
    IMAGE_LOCK_NONE,
    IMAGE_LOCK_READER, /* a backing layer: nobody may write it */
    IMAGE_LOCK_WRITER, /* a machine's disk: nobody else may write it, or read it as a whole */
};

/* Takes the locks of a role; ERR_DENIED when another process holds what contradicts it. */
ERR_RESULT image_lock_take(int fd, const char *path, enum image_lock_role role);

/* Does another open file description hold a writer's locks? Takes none. */
ERR_RESULT image_lock_is_written(int fd, const char *path, bool *out_is_written);

/* Does another open file description hold any lock of QEMU's or ours? Takes none. */
ERR_RESULT image_lock_is_held(int fd, const char *path, bool *out_is_held);

/* From writer to reader without a gap, or down to none. */
ERR_RESULT image_lock_lower(int fd, const char *path, enum image_lock_role role);

#endif
