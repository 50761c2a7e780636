/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_create.h - writes an empty image.
 */
#ifndef STORAGE_QCOW_QCOW_CREATE_H
#define STORAGE_QCOW_QCOW_CREATE_H

#include <stdint.h>

#include "base/err.h"

struct host_file;

struct qcow_create_options {
    uint64_t virtual_bytes;
    uint32_t version;           /* 2 or 3 */
    uint32_t cluster_bits;      /* 9..21 */
    const char *backing_name;   /* NULL: none */
    const char *backing_format; /* with a backing file: "raw" or "qcow2" */
};

/* Into an empty file; durable when it returns. */
ERR_RESULT qcow_create(struct host_file *file, const struct qcow_create_options *options);

#endif
