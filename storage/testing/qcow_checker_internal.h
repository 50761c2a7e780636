/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_checker_internal.h - the format as the checker's files see it.
 */
#ifndef STORAGE_TESTING_QCOW_CHECKER_INTERNAL_H
#define STORAGE_TESTING_QCOW_CHECKER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/testing/qcow_checker.h"

#define CHECKED_COPIED      ((uint64_t)1 << 63)
#define CHECKED_COMPRESSED  ((uint64_t)1 << 62)
#define CHECKED_OFFSET_BITS 0x00fffffffffffe00u

/* A header and its extensions, which a run has found to be sound. */
struct checked_image {
    const uint8_t *bytes;
    size_t len;
    uint32_t version, cluster_bits, order, l1_entries, snapshot_count;
    uint64_t virtual_bytes, cluster_bytes, cluster_count; /* the last may be cut short */
    uint64_t l1_offset, table_offset, table_bytes, snapshots_offset;
    uint64_t incompatible, autoclear;
    bool is_extended, is_zstd, has_bitmaps;
    uint64_t bitmap_count, bitmaps_bytes, bitmaps_offset;
    uint64_t crypt_offset, crypt_bytes;
};

/* NULL when sound, else what is wrong with it. */
const char *checked_image_parse(struct checked_image *image, const uint8_t *bytes, size_t len);

/* Big endian. */
uint64_t checked_number(const struct checked_image *image, uint64_t offset, unsigned bytes);

/* The count that is stored for a cluster. */
uint64_t checked_count(const struct checked_image *image, uint64_t cluster);
bool checked_is_cluster_start(const struct checked_image *image, uint64_t offset);

/* One L2 entry. */
struct checked_entry {
    uint64_t word;
    uint32_t data_mask, zero_mask; /* of 32 subclusters; whole clusters have all or none */
    bool is_compressed;
    uint64_t host_offset, host_bytes; /* compressed: whole 512-byte sectors; no bytes: none */
    const char *fault;                /* NULL: well formed */
};

uint64_t checked_entries_per_table(const struct checked_image *image);
struct checked_entry checked_entry_at(const struct checked_image *image, uint64_t table,
                                      uint64_t index);

struct checked_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint64_t virtual_bytes;
    char name[64];
};

/* *inout_offset: where the snapshot's row starts, then where it ends. NULL, or what is wrong. */
const char *checked_snapshot_parse(const struct checked_image *image, uint64_t *inout_offset,
                                   struct checked_snapshot *out_snapshot);

/* What a cluster is used for; several bits are a fault. */
enum checked_use {
    CHECKED_USE_DATA = 1,
    CHECKED_USE_COMPRESSED = 2,
    CHECKED_USE_L2 = 4,
    CHECKED_USE_HEADER = 8,
    CHECKED_USE_L1 = 16,
    CHECKED_USE_TABLE = 32,
    CHECKED_USE_BLOCK = 64,
    CHECKED_USE_EXTRA = 128, /* snapshot table, bitmaps, encryption header */
};

/* A walk that counts references. */
struct checked_walk {
    struct checked_image image;
    uint32_t *references; /* owned, for each cluster of the file */
    uint32_t *tables;     /* owned: references to it as an L2 table */
    uint8_t *uses;        /* owned: enum checked_use */
    uint64_t steps;
    struct qcow_verdict verdict;
};

__attribute__((format(printf, 2, 3))) void checked_complain(struct checked_walk *walk,
                                                            const char *fmt, ...);

/* One reference (or several) to each cluster of a range. */
void checked_refer(struct checked_walk *walk, enum checked_use use, uint64_t offset, uint64_t bytes,
                   uint32_t references);

/* False when a walk has taken so many steps that only a malicious image can be the reason. */
bool checked_may_go_on(struct checked_walk *walk, uint64_t steps);

void checked_walk_l1(struct checked_walk *walk, uint64_t offset, uint64_t entries);
void checked_walk_snapshots(struct checked_walk *walk);
void checked_walk_bitmaps(struct checked_walk *walk);

#endif
