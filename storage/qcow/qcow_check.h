/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_check.h - is an image sound? Walks everything that is reachable, counts references and
 * compares them with what the image says. Changes nothing.
 *
 * Memory: 5 bytes for each referenced host cluster and the L1 table. Work: each table is read once,
 * however often it is referenced. Thread: any that may block; nobody writes the image meanwhile.
 */
#ifndef STORAGE_QCOW_QCOW_CHECK_H
#define STORAGE_QCOW_QCOW_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;

enum qcow_finding {
    QCOW_FINDING_ERROR, /* data is lost, or can be when the image is written */
    QCOW_FINDING_LEAK,  /* only space is lost */
};

/* Told of each finding, in the order of the walk. */
struct qcow_check_listener {
    void (*found)(struct qcow_check_listener *listener, enum qcow_finding kind, const char *text);
};

struct qcow_check_report {
    uint64_t errors;
    uint64_t flag_errors;  /* among them: COPIED flags only, which counts can put right */
    uint64_t count_errors; /* among them: counts below the references, which a rebuild puts right */
    uint64_t leaks;        /* clusters of the file that nothing refers to */
    uint64_t image_end;    /* behind the last cluster in use */
    uint64_t total_clusters; /* of the disk */
    uint64_t allocated_clusters;
    uint64_t compressed_clusters;
    uint64_t fragmented_clusters; /* that do not follow the one before in the file, too */
    uint64_t cluster_bytes;
    bool is_dirty;
    bool is_corrupt;
};

/* An error when the image can not be checked: it is none, or the host fails. */
ERR_RESULT qcow_check(struct host_file *file, struct qcow_check_listener *listener,
                      struct qcow_check_report *out_report);

#endif
