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
    enum qcow_kind kind;
    bool is_copied;            /* the place is the image's alone: may be overwritten; false where
                                * that was not asked */
    uint64_t host_offset;      /* of the first byte, 0: no place; of a packed stream's start */
    uint32_t compressed_bytes; /* of the packed stream, at most */
    uint64_t bytes;
};

/* Entries of guest clusters that follow each other in one slice. */
struct qcow_entries {
    struct qcow_slice *slice;
    uint64_t first; /* index in the slice */
    uint64_t count; /* 0: there is no L2 table */
    bool is_shared; /* the table is, so none of its clusters may be overwritten */
    enum qcow_counts counts;
};

/* The extent that starts at `offset`, at most `len` bytes and never across a slice's end. */
ERR_RESULT qcow_map_lookup_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                  enum qcow_counts counts, struct qcow_extent *out_extent)
    REQUIRES(&image->lock);

/* The entries from this guest offset's cluster to the end of the slice. */
ERR_RESULT qcow_map_entries_locked(struct qcow_image *image, uint64_t offset,
                                   enum qcow_counts counts, struct qcow_entries *out_entries)
    REQUIRES(&image->lock);

/* What entry `index` of them says, is_copied as in an extent; false when it is malformed. */
bool qcow_map_cluster_locked(struct qcow_image *image, const struct qcow_entries *entries,
                             uint64_t index, struct qcow_cluster *out_cluster)
    REQUIRES(&image->lock);
/* Replaces it and drops what it pointed to, unless the new one still does. The table is the
 * image's own. */
void qcow_map_replace_locked(struct qcow_image *image, const struct qcow_entries *entries,
                             uint64_t index, const struct qcow_cluster *cluster)
    REQUIRES(&image->lock);

struct err *qcow_map_malformed(const struct qcow_image *image, const char *what, uint64_t offset);

#endif
