/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_prune.h - removes files of a disk that nothing needs.
 *
 * A sealed layer goes if no snapshot of a store that is known names it, no image stands on it that
 * stays, nobody has it open, and it is known that all stores are known (layer_record.h). Overlays
 * that were prepared and never used go, and drafts of merges that nobody is at work on. Base images
 * and whatever is not named as this disk's overlays are never touched.
 *
 * If anything can not be looked at (a store, a manifest, an image in the folder), nothing is
 * removed. Layers go from the top down, so that a crash leaves no image without what it stands on.
 * Thread: any; blocks.
 */
#ifndef SNAPSHOT_LAYER_PRUNE_H
#define SNAPSHOT_LAYER_PRUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "snapshot/layer_prune_policy.h"
#include "snapshot/name_list.h"

enum layer_prune_mode {
    LAYER_PRUNE_LOOK,       /* tells what could be removed; takes no locks */
    LAYER_PRUNE_REMOVE,     /* waits for saves and restores that are at work */
    LAYER_PRUNE_TRY_REMOVE, /* ERR_DENIED when there are any */
};

struct layer_prune_request {
    const char *image;         /* any of the disk */
    const char *const *stores; /* beside those that the record names; who removes adds them to it */
    size_t store_count;
    const char *const *image_folders; /* others with images that stand on these, likewise */
    size_t image_folder_count;
    bool is_unknown_too;          /* the caller answers for it that no other store needs them */
    const struct name_list *only; /* names of files; NULL: all */
};

struct layer_prune_file {
    char *path; /* owned */
    enum layer_verdict verdict;
    uint64_t bytes; /* that it takes on disk */
};

struct layer_prune_report {
    struct layer_prune_file *files; /* owned; what is removed, or would be, in this order */
    size_t count;
    uint64_t bytes;
    size_t unknown_count; /* kept as LAYER_UNKNOWN, although nothing that is known needs them */
    size_t used_count;    /* kept because somebody has them open */
};

ERR_RESULT layer_prune(const struct layer_prune_request *request, enum layer_prune_mode mode,
                       struct layer_prune_report *out_report);
void layer_prune_report_finish(struct layer_prune_report *report); /* accepts a zeroed one */

#endif
