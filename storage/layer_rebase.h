/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_rebase.h - puts an image onto another one, or onto none, while what it shows stays the
 * same.
 *
 * What shows through from the old images below it, and would not from the new, is copied into it;
 * then its header changes, in one sector. A crash before that leaves an image that shows the same
 * and holds more. Nobody else may use the image; others may use what is below. Thread: any; blocks.
 */
#ifndef STORAGE_LAYER_REBASE_H
#define STORAGE_LAYER_REBASE_H

#include <stdint.h>

#include "base/err.h"
#include "storage/disk_image.h"
#include "storage/layer_merge.h"

struct layer_rebase {
    struct disk_image_name image; /* qcow2; opened for writing */
    const char *backing;          /* as the image will name it; NULL: none */
    const char *backing_format;
    struct layer_merge_watch *watch; /* may be NULL */
};

/* Gives how much was copied. */
ERR_RESULT layer_rebase(const struct layer_rebase *rebase, uint64_t *out_copied_bytes);

/* Changes the name only, for images that were moved: what it shows is the caller's matter, also
 * whether the new one is there. */
ERR_RESULT layer_rebase_name(const struct layer_rebase *rebase);

#endif
