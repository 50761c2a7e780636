/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_entry.h - what one entry of an L2 table says about one guest cluster.
 *
 * A cluster is made of subclusters: 32 of them in images with extended L2 entries, one in all
 * others. Everything above this file works on subclusters and does not ask which it is.
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_L2_ENTRY_H
#define STORAGE_QCOW_QCOW_L2_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

struct qcow_header;

#define QCOW_ENTRY_COPIED     ((uint64_t)1 << 63)
#define QCOW_ENTRY_COMPRESSED ((uint64_t)1 << 62)
#define QCOW_ENTRY_ZERO       ((uint64_t)1 << 0)

/* As it stands in the table. */
struct qcow_entry {
    uint64_t descriptor;
    uint64_t bitmap; /* in images with extended L2 entries; else 0, and not stored */
};

/* Bit n of a mask is subcluster n. */
struct qcow_cluster {
    uint64_t host_offset; /* its place; 0: none. It may have one without data */
    bool is_copied;       /* the place is referenced once: may be overwritten */
    bool is_compressed;
    uint32_t compressed_bytes; /* at most; the stream may end earlier */
    uint32_t data;             /* subclusters whose bytes are at their place */
    uint32_t zero;             /* subclusters that read as zeros */
};

/* Of one subcluster. */
enum qcow_kind {
    QCOW_KIND_UNALLOCATED, /* look into the backing file, else zeros */
    QCOW_KIND_ZERO,
    QCOW_KIND_DATA,
    QCOW_KIND_COMPRESSED,
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
    uint32_t subcluster_bits; /* as cluster_bits without extended L2 entries */
    bool has_backing;
};

struct qcow_entry_context qcow_entry_context_of(const struct qcow_header *header);

static inline bool qcow_entry_is_extended(const struct qcow_entry_context *context)
{
    return context->subcluster_bits != context->cluster_bits;
}

/* An entry has 1 << this many bytes. */
static inline unsigned qcow_entry_bytes_bits(const struct qcow_entry_context *context)
{
    return qcow_entry_is_extended(context) ? 4 : 3;
}

/* An L2 table has 1 << this many entries. */
static inline unsigned qcow_entry_table_bits(const struct qcow_entry_context *context)
{
    return context->cluster_bits - qcow_entry_bytes_bits(context);
}

static inline unsigned qcow_subcluster_count(const struct qcow_entry_context *context)
{
    return 1u << (context->cluster_bits - context->subcluster_bits);
}

/* `count` subclusters from `first` on. */
static inline uint32_t qcow_subcluster_mask(unsigned first, unsigned count)
{
    return (uint32_t)((((uint64_t)1 << count) - 1) << first);
}

static inline uint32_t qcow_subcluster_all(const struct qcow_entry_context *context)
{
    return qcow_subcluster_mask(0, qcow_subcluster_count(context));
}

/* False when the entry is malformed. */
bool qcow_l2_entry_decode(struct qcow_entry entry, const struct qcow_entry_context *context,
                          struct qcow_cluster *out_cluster);
/* Of a cluster that the decoder could have given. */
struct qcow_entry qcow_l2_entry_encode(const struct qcow_cluster *cluster,
                                       const struct qcow_entry_context *context);

/* The kind of subcluster `first`, and how many from it on are of that kind. */
enum qcow_kind qcow_cluster_kind(const struct qcow_cluster *cluster,
                                 const struct qcow_entry_context *context, unsigned first,
                                 unsigned *out_count);

/* The bytes of these subclusters are at the cluster's place, which it has. */
void qcow_cluster_set_data(struct qcow_cluster *cluster, uint32_t mask);

/* Zeroes subclusters; the place stays, but that of a compressed cluster. False, and nothing
 * changed, when entries can not express it: the caller writes zeros, or leaves a discarded range
 * as it is. */
bool qcow_cluster_zero(struct qcow_cluster *cluster, const struct qcow_entry_context *context,
                       uint32_t mask, enum qcow_zero_mode mode);

#endif
