/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write_list.h - metadata as it was at one moment, to be written without holding the lock.
 *
 * Tested by: qcow_flush_test.c
 */
#ifndef STORAGE_QCOW_QCOW_WRITE_LIST_H
#define STORAGE_QCOW_QCOW_WRITE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_guard.h"

struct host_file;
struct qcow_pending_write;

struct qcow_write_list {
    struct qcow_pending_write *first; /* owned; newest first */
    size_t count;
};

/* Adds a write and gives its buffer, which the caller fills; NULL: no memory. */
uint8_t *qcow_write_list_add(struct qcow_write_list *list, uint64_t offset, size_t len);
/* In the order of the file, adjacent ones as one write; no two overlap. */
ERR_RESULT qcow_write_list_submit(const struct qcow_write_list *list, struct host_file *file);
/* Does each write go to tables of this kind? */
bool qcow_write_list_is_guarded(const struct qcow_write_list *list, const struct qcow_guard *guard,
                                enum qcow_table_kind kind);
void qcow_write_list_finish(struct qcow_write_list *list);

#endif
