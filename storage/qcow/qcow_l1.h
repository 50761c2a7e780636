/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l1.h - the L1 table: where the L2 tables are. Resident once it is loaded, written by flushes
 * in sectors. An image that is only read loads it when it is first asked for: of a chain of many
 * layers most are opened and seldom looked into.
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
    uint64_t *entries;  /* owned; NULL: not loaded */
    uint64_t *dirty;    /* owned; bitmap of sectors changed since the last capture */
    uint64_t *flushing; /* owned; bitmap of sectors captured and not settled */
    bool is_dirty;
};

/* Where it is; nothing is read. */
void qcow_l1_init(struct qcow_l1 *l1, struct host_file *file, const struct qcow_header *header);
/* Reads it, unless it was read before. After an error it can be tried again. */
ERR_RESULT qcow_l1_load(struct qcow_l1 *l1);
void qcow_l1_finish(struct qcow_l1 *l1); /* accepts a zeroed one */

static inline bool qcow_l1_is_loaded(const struct qcow_l1 *l1)
{
    return l1->entries != NULL;
}

/* Of a loaded one. */
void qcow_l1_set(struct qcow_l1 *l1, uint64_t index, uint64_t entry);

/* Copies what has changed into the list; settle says whether the list became durable. */
ERR_RESULT qcow_l1_capture(struct qcow_l1 *l1, struct qcow_write_list *list);
void qcow_l1_settle(struct qcow_l1 *l1, bool is_durable);

#endif
