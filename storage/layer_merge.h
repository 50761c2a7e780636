/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_merge.h - makes one sealed layer of several, while machines run on them.
 *
 *     base <- a <- b <- c <- d        merging b and c:      base <- a <- c' <- d
 *                                                                     \- b
 *
 * The union is written to a file beside the newest of them, `c`, made durable and renamed over it.
 * No file is changed: who has `c` open keeps it as it was, who opens its name gets the same content
 * from fewer files, and `d` needs not know. `b` stays for those who refer to it by name. A crash
 * leaves the chain as it was or as it is to be, and at most a file NAME.merging, which the next
 * merge of that layer uses up.
 *
 * The new file has the modification time of the old one and notes its size (qcow_predecessors.h),
 * by which a snapshot recognises it. Thread: any; blocks.
 */
#ifndef STORAGE_LAYER_MERGE_H
#define STORAGE_LAYER_MERGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/disk_image.h"

struct layer_merge_watch {
    /* Asked now and then; false ends the merge with ERR_CANCELLED. */
    bool (*go_on)(struct layer_merge_watch *watch, uint64_t done_bytes, uint64_t total_bytes);
};

struct layer_merge_result {
    uint64_t copied_bytes;
    uint64_t file_bytes; /* what the new file takes on disk */
};

/* Merges the layer of this name and the `count - 1` below it, all sealed qcow2 images with
 * something below them. ERR_DENIED: somebody else merges into this layer. `watch` may be NULL. */
ERR_RESULT layer_merge(const struct disk_image_name *newest, unsigned count,
                       struct layer_merge_watch *watch, struct layer_merge_result *out_result);

#endif
