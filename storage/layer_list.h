/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_list.h - the files of a disk's chain, for people and for policies. Thread: any.
 */
#ifndef STORAGE_LAYER_LIST_H
#define STORAGE_LAYER_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/disk_image.h"

struct layer_info {
    char *path;         /* owned; absolute but for the newest, which is as it was named */
    const char *format; /* "raw" or "qcow2" */
    bool is_sealed;     /* without write permission */
    bool has_records;   /* snapshots inside the image or bitmaps, which a merge would lose */
    uint64_t virtual_bytes;
    uint64_t file_bytes; /* what it takes on disk */
    uint64_t end_bytes;  /* where the file ends */
    int64_t modified_ns;
};

struct layer_list {
    struct layer_info *layers; /* owned; the lowest first */
    unsigned count;
};

/* Opens the images for reading, without locks. */
ERR_RESULT layer_list_read(const struct disk_image_name *name, struct layer_list *out_list);
void layer_list_finish(struct layer_list *list); /* accepts a zeroed one */

/* Was the file at `path` of this size, or did it take the place of one that was? */
ERR_RESULT layer_stands_for(const char *path, const char *format, uint64_t file_bytes,
                            bool *out_stands);

/* Has a qcow2 image nothing of its own, so that it shows what it stands on? */
ERR_RESULT layer_is_unwritten(const char *path, bool *out_is_unwritten);

#endif
