/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_entry.h - what one entry of an L2 table says about one guest cluster.
 *
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_L2_ENTRY_H
#define STORAGE_QCOW_QCOW_L2_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#define QCOW_ENTRY_COPIED      ((uint64_t)1 << 63)
#define QCOW_ENTRY_COMPRESSED  ((uint64_t)1 << 62)
#define QCOW_ENTRY_ZERO        ((uint64_t)1 << 0)
#define QCOW_ENTRY_OFFSET_MASK 0x00fffffffffffe00u

enum qcow_cluster_kind {
    QCOW_CLUSTER_UNALLOCATED, /* look into the backing file, else zeros */
    QCOW_CLUSTER_ZERO,
    QCOW_CLUSTER_DATA,
    QCOW_CLUSTER_COMPRESSED,
};

struct qcow_cluster {
    enum qcow_cluster_kind kind;
    bool is_copied;            /* referenced once: may be overwritten in place */
    uint64_t host_offset;      /* 0: none. A zero cluster may keep one */
    uint32_t compressed_bytes; /* at most; the stream may end earlier */
};

/* How a range stops holding data. */
enum qcow_zero_mode {
    QCOW_ZERO_KEEP,    /* reads zeros, keeps its host cluster for the next write */
    QCOW_ZERO_UNMAP,   /* reads zeros, gives the host cluster back */
    QCOW_ZERO_DISCARD, /* gives the host cluster back; may keep the content instead */
};

struct qcow_entry_context {
    uint32_t version;
    uint32_t cluster_bits;
    bool has_backing;
};

/* False when the entry is malformed. */
bool qcow_l2_entry_decode(uint64_t entry, const struct qcow_entry_context *context,
                          struct qcow_cluster *out_cluster);

static inline uint64_t qcow_l2_entry_of_data(uint64_t host_offset)
{
    return host_offset | QCOW_ENTRY_COPIED;
}

/* The entry after zeroing a cluster. False when entries can not express it: the caller writes
 * zeros, or leaves a discarded cluster as it is. */
bool qcow_l2_entry_zeroed(const struct qcow_cluster *cluster,
                          const struct qcow_entry_context *context, enum qcow_zero_mode mode,
                          uint64_t *out_entry);

#endif
