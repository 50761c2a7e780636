/* SPDX-License-Identifier: Apache-2.0 */
/*
 * held_backing.h - before an image stands on the layers of another disk, these know of it, so that
 * nobody removes them for want of a user. Thread: loop only; blocks.
 */
#ifndef TOOLS_VM_DISK_HELD_BACKING_H
#define TOOLS_VM_DISK_HELD_BACKING_H

#include "base/err.h"
#include "base/option_table.h"
#include "snapshot/held_layers.h"

struct held_backing {
    const char *image;   /* there or not yet */
    const char *backing; /* as the image will name it */
    const char *format;
    const struct option_list *folders; /* where images may lie, beside the image's own */
};

/* The path by which this process finds it: a relative name is seen from the image. free() it. */
ERR_RESULT held_backing_path(const char *image, const char *backing, char **out_path);

/* Release them when the image is under its name. What is not there, or not where images may lie, is
 * passed over: whoever opens the image says so. */
ERR_RESULT held_backing_take(const struct held_backing *backing, struct held_layers **out_held);

#endif
