/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_index.h - which layer of a chain holds each 4 KiB of a disk, in memory.
 *
 * A unit is 4 KiB; 32 are a cluster of an overlay, 256 clusters (32 MiB) are a leaf, the range of
 * one 4 KiB slice of an overlay's L2 table. A leaf has one 16 bit number for each cluster, or,
 * where its units differ, a row of 32. So 64 GiB take 1 MiB, and 64 bytes more for each mixed
 * cluster. Leaves are made when first asked for; beyond `bytes_max` some that were not used of late
 * are dropped, to be made again. Thread: any, one at a time.
 */
#ifndef STORAGE_LAYER_INDEX_H
#define STORAGE_LAYER_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define LAYER_UNIT_BITS    12u
#define LAYER_CLUSTER_BITS 17u
#define LAYER_LEAF_BITS    25u

#define LAYER_CLUSTER_UNITS (1u << (LAYER_CLUSTER_BITS - LAYER_UNIT_BITS))
#define LAYER_LEAF_CLUSTERS (1u << (LAYER_LEAF_BITS - LAYER_CLUSTER_BITS))
#define LAYER_LEAF_UNITS    (LAYER_LEAF_CLUSTERS * LAYER_CLUSTER_UNITS)

/* What the index says of a unit: 0 in a new leaf, and anything below this. */
#define LAYER_NUMBER_END 0x8000u

struct layer_leaf {
    uint32_t merged_upto; /* the caller's: how many layers have been taken in */
    bool is_recent;       /* used since the clock hand last passed */
    uint16_t row_count;
    uint16_t row_capacity;
    uint16_t (*rows)[LAYER_CLUSTER_UNITS]; /* owned */
    uint16_t clusters[LAYER_LEAF_CLUSTERS];
};

struct layer_leaf_group;

struct layer_index {
    struct layer_leaf_group **groups; /* owned */
    size_t group_count;
    uint64_t leaf_count; /* of the disk, not of those that exist */
    uint64_t hand;       /* the clock's, a leaf number */
    size_t bytes;        /* taken by leaves */
    size_t bytes_max;
};

ERR_RESULT layer_index_init(struct layer_index *index, uint64_t virtual_bytes, size_t bytes_max);
void layer_index_finish(struct layer_index *index); /* accepts a zeroed one */

/* Drops all leaves. */
void layer_index_clear(struct layer_index *index);

/* The leaf of this guest offset, valid until the next call. */
ERR_RESULT layer_index_leaf(struct layer_index *index, uint64_t offset,
                            struct layer_leaf **out_leaf);

/* Sets units of a leaf of this index. */
ERR_RESULT layer_leaf_set(struct layer_index *index, struct layer_leaf *leaf, unsigned first,
                          unsigned count, uint16_t number);

/* What is said of a unit, and of how many from there on, of at most `count`, the same is said. They
 * lie within the leaf. */
uint16_t layer_leaf_get(const struct layer_leaf *leaf, unsigned unit, unsigned count,
                        unsigned *out_run);

#endif
