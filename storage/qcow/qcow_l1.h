/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l1.h - the L1 table: where the L2 tables are. Resident, written by flushes in sectors.
 *
 * Thread: any, under the image's lock.
 */
#ifndef STORAGE_QCOW_QCOW_L1_H
#define STORAGE_QCOW_QCOW_L1_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;
struct qcow_header;
struct qcow_write_list;

struct qcow_l1 {
    struct host_file *file;
    uint64_t offset;
    uint32_t count;
    uint64_t *entries;  /* owned */
    uint64_t *dirty;    /* owned; bitmap of sectors changed since the last capture */
    uint64_t *flushing; /* owned; bitmap of sectors captured and not settled */
    bool is_dirty;
};

ERR_RESULT qcow_l1_load(struct qcow_l1 *l1, struct host_file *file,
                        const struct qcow_header *header);
void qcow_l1_finish(struct qcow_l1 *l1); /* accepts a zeroed one */

void qcow_l1_set(struct qcow_l1 *l1, uint64_t index, uint64_t entry);

/* Copies what has changed into the list; settle says whether the list became durable. */
ERR_RESULT qcow_l1_capture(struct qcow_l1 *l1, struct qcow_write_list *list);
void qcow_l1_settle(struct qcow_l1 *l1, bool is_durable);

#endif
