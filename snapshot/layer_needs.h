/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_needs.h - the images that the snapshots of some stores name. Thread: any; blocks.
 */
#ifndef SNAPSHOT_LAYER_NEEDS_H
#define SNAPSHOT_LAYER_NEEDS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/err.h"
#include "proto/snapshot.pb-c.h"

struct file_list {
    struct stat *files; /* owned */
    size_t count, capacity;
};

struct layer_needs {
    struct file_list named; /* in order of device and inode once sorted */
    struct file_list raw;   /* those of them that are raw */
    size_t snapshot_count;
};

/* What a record says of a store must be true: that it is there, and the same. */
ERR_RESULT layer_needs_add_recorded(struct layer_needs *needs,
                                    const Ferry__LayerRecordStore *store);
ERR_RESULT layer_needs_add_store(struct layer_needs *needs, const char *path);
void layer_needs_sort(struct layer_needs *needs);
bool layer_needs_has(const struct layer_needs *needs, const struct stat *file); /* sorted */
void layer_needs_finish(struct layer_needs *needs); /* accepts a zeroed one */

#endif
