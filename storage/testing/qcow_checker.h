/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker.h - a second opinion on images: written from the format alone, it shares no code
 * with storage/qcow.
 *
 * Knows all of versions 2 and 3 but data outside the file: every width of counts, extended L2
 * entries, compressed clusters, internal snapshots, bitmaps. Looks at an image in memory and
 * changes nothing; what lies behind its end reads as zeros.
 */
#ifndef STORAGE_TESTING_QCOW_CHECKER_H
#define STORAGE_TESTING_QCOW_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qcow_verdict {
    bool is_refused; /* the header is such that nothing else was looked at; also an error */
    bool is_dirty, is_corrupt;
    unsigned errors; /* counts below references, malformed or stray pointers, wrong flags */
    unsigned leaks;  /* clusters whose count is above their references */
    /* Also errors: an entry allows writing in place to a cluster that has other references. */
    unsigned hazards;
    char first[160]; /* the first error, for people */
};

struct qcow_verdict qcow_checker_run(const uint8_t *image, size_t len);

/* Which clusters of the file hold other things than guest data: a byte for each cluster, which the
 * caller frees; NULL for a refused image or without memory. */
uint8_t *qcow_checker_metadata(const uint8_t *image, size_t len, size_t *out_count,
                               unsigned *out_cluster_bits);

/* What a guest would see, but for backing files: of the image itself, or of the snapshot with this
 * index in the table. */
struct qcow_view {
    const uint8_t *image;
    size_t len;
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint64_t virtual_bytes;
    char name[64]; /* of the snapshot */
};

bool qcow_checker_view(const uint8_t *image, size_t len, struct qcow_view *out_view);
bool qcow_checker_snapshot_view(const uint8_t *image, size_t len, uint32_t index,
                                struct qcow_view *out_view);

/* BELOW: the image says nothing. BROKEN: a malformed entry, or one that can not be decompressed. */
enum qcow_sector { QCOW_SECTOR_DATA, QCOW_SECTOR_ZERO, QCOW_SECTOR_BELOW, QCOW_SECTOR_BROKEN };

/* Sectors that are not data are zeroed in `data`. */
void qcow_view_read(const struct qcow_view *view, uint64_t guest_offset, size_t sector_count,
                    uint8_t *data, enum qcow_sector *kinds);

/* One sector of the image itself. */
enum qcow_sector qcow_checker_read(const uint8_t *image, size_t len, uint64_t guest_offset,
                                   uint8_t out_sector[512]);

#endif
