/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_options.h - what kind of image to make: the options that creating and converting share.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_IMAGE_OPTIONS_H
#define TOOLS_VM_DISK_IMAGE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/option_table.h"
#include "storage/qcow/qcow_create.h"

struct image_options {
    const char *cluster_size;
    uint64_t version;
    uint64_t refcount_bits;
    bool extended_l2;
    bool lazy_refcounts;
    bool is_static;
    const char *compression;
    const char *preallocation;
};

/* Rows for a settings struct that has these as `field`. */
#define IMAGE_OPTION_ROWS(type, field)                                                             \
    OPTION_TEXT("cluster-size", 0, type, field.cluster_size, "SIZE", "64k",                        \
                "qcow2: 512 to 2M; 128k suits --extended-l2"),                                     \
        OPTION_NUMBER("qcow-version", 0, type, field.version, "N", 2, 3, 3,                        \
                      "qcow2: 2 can be read by programs from before 2012"),                        \
        OPTION_NUMBER("refcount-bits", 0, type, field.refcount_bits, "BITS", 1, 64, 16,            \
                      "qcow2: width of reference counts, a power of two"),                         \
        OPTION_FLAG("extended-l2", 0, type, field.extended_l2,                                     \
                    "qcow2: clusters have 32 parts of their own, so small writes stay small"),     \
        OPTION_FLAG("lazy-refcounts", 0, type, field.lazy_refcounts,                               \
                    "qcow2: other programs may write counts late"),                                \
        OPTION_FLAG("static", 0, type, field.is_static,                                            \
                    "qcow2: all tables are in place, as in the layers of a running machine"),      \
        OPTION_TEXT("compression-type", 0, type, field.compression, "TYPE", "zlib",                \
                    "qcow2: zlib or zstd, for compressed clusters"),                               \
        OPTION_TEXT("preallocation", 0, type, field.preallocation, "HOW", "off",                   \
                    "off, metadata, falloc or full")

/* ERR_INVALID for texts that mean nothing; what contradicts each other qcow_create says. */
ERR_RESULT image_options_read(const struct image_options *options,
                              struct qcow_create_options *out_options);

ERR_RESULT image_compression_parse(const char *text, enum qcow_compression *out_compression);

#endif
