/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_reference_map.h - how often each host cluster is referenced, as found by a walk through an
 * image, and by what kind of thing.
 *
 * Memory grows with the clusters that are referenced, not with the file: 5 bytes each, in chunks of
 * 4096 adjacent ones. Thread: any, one at a time.
 */
#ifndef STORAGE_QCOW_QCOW_REFERENCE_MAP_H
#define STORAGE_QCOW_QCOW_REFERENCE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QCOW_REFERENCE_CHUNK_BITS     12u
#define QCOW_REFERENCE_CHUNK_CLUSTERS (1u << QCOW_REFERENCE_CHUNK_BITS)

enum qcow_owner {
    QCOW_OWNER_NONE,
    QCOW_OWNER_DATA, /* guest data, compressed or not, also of snapshots */
    QCOW_OWNER_HEADER,
    QCOW_OWNER_L1,
    QCOW_OWNER_L2,
    QCOW_OWNER_REFCOUNT_TABLE,
    QCOW_OWNER_REFCOUNT_BLOCK,
    QCOW_OWNER_SNAPSHOT_TABLE,
    QCOW_OWNER_SNAPSHOT_L1,
    QCOW_OWNER_BITMAP,
};

const char *qcow_owner_name(enum qcow_owner owner); /* "an L2 table" */

struct qcow_reference_chunk {
    uint64_t number; /* first cluster >> CHUNK_BITS */
    uint32_t counts[QCOW_REFERENCE_CHUNK_CLUSTERS];
    uint8_t owners[QCOW_REFERENCE_CHUNK_CLUSTERS];
};

struct qcow_reference_map {
    struct qcow_reference_chunk **slots; /* owned; a hash table, NULL: free */
    size_t slot_count;                   /* a power of two, or 0 */
    size_t chunk_count;
};

void qcow_reference_map_finish(struct qcow_reference_map *map); /* accepts a zeroed one */

/* Counts `times` references. What the cluster belonged to before goes to *out_before, which need
 * not be the same. False: no memory. */
bool qcow_reference_map_add(struct qcow_reference_map *map, uint64_t cluster, uint32_t times,
                            enum qcow_owner owner, enum qcow_owner *out_before);

uint32_t qcow_reference_map_count(const struct qcow_reference_map *map, uint64_t cluster);
enum qcow_owner qcow_reference_map_owner(const struct qcow_reference_map *map, uint64_t cluster);

/* Chunks in ascending order: an array of chunk_count pointers, to be freed; NULL: no memory. */
const struct qcow_reference_chunk **qcow_reference_map_sorted(const struct qcow_reference_map *map);

#endif
