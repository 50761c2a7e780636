/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_create.h - writes an empty image.
 */
#ifndef STORAGE_QCOW_QCOW_CREATE_H
#define STORAGE_QCOW_QCOW_CREATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_header.h"

struct host_file;

/* What has its place in the file before the guest writes. */
enum qcow_preallocation {
    QCOW_PREALLOCATION_OFF,
    QCOW_PREALLOCATION_METADATA, /* tables that give each cluster its place */
    QCOW_PREALLOCATION_FALLOC,   /* and the host reserves the space */
    QCOW_PREALLOCATION_FULL,     /* and zeros are written to it */
};

/* Where a layer of a running machine is concerned: clusters and the largest disk. */
#define QCOW_STATIC_CLUSTER_BITS 17u
#define QCOW_STATIC_BYTES_MAX    ((uint64_t)4 << 40)

/* Zero means the format's default, but for version and cluster_bits. */
struct qcow_create_options {
    uint64_t virtual_bytes; /* whole sectors */
    uint32_t version;       /* 2 or 3 */
    uint32_t cluster_bits;  /* 9..21 */
    uint32_t refcount_bits; /* 1, 2, 4 ... 64; 0: 16 */
    bool has_extended_l2;   /* 32 subclusters a cluster; version 3, cluster_bits 14..21 */
    bool has_lazy_refcounts;
    /* Every table is in place, L2 tables as holes: no metadata is allocated later. A disk for which
     * that takes too much is made without. */
    bool is_static;
    enum qcow_compression compression;
    enum qcow_preallocation preallocation; /* not with a backing file */
    const char *backing_name;              /* NULL: none */
    const char *backing_format;            /* with a backing file: "raw" or "qcow2" */
};

/* Into an empty file; durable when it returns. ERR_INVALID names options that contradict each
 * other. */
ERR_RESULT qcow_create(struct host_file *file, const struct qcow_create_options *options);

#endif
