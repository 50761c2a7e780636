/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_map.h - from guest bytes to what the image holds for them.
 */
#ifndef STORAGE_QCOW_QCOW_MAP_H
#define STORAGE_QCOW_QCOW_MAP_H

#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_image_internal.h"

/* Adjacent guest bytes of one kind, and adjacent in the host file where they have a place. */
struct qcow_extent {
    struct qcow_cluster cluster; /* of the first byte */
    uint64_t bytes;
};

/* The extent that starts at `offset`, at most `len` bytes and never across a slice's end. */
ERR_RESULT qcow_map_lookup_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                  struct qcow_extent *out_extent) REQUIRES(&image->lock);

/* Makes the L2 table for this guest offset, if there is none, and checks that it may be written. */
ERR_RESULT qcow_map_ensure_table_locked(struct qcow_image *image, uint64_t offset)
    REQUIRES(&image->lock);

/* The entries of guest clusters from this offset on; they end with the slice. The table exists. */
ERR_RESULT qcow_map_entries_locked(struct qcow_image *image, uint64_t offset,
                                   struct qcow_slice **out_slice, uint64_t **out_entries,
                                   uint64_t *out_count) REQUIRES(&image->lock);

/* Replaces one entry of a slice and drops what it pointed to, unless the new one still does. */
void qcow_map_replace_locked(struct qcow_image *image, struct qcow_slice *slice, uint64_t *entry,
                             uint64_t new_entry) REQUIRES(&image->lock);

#endif
