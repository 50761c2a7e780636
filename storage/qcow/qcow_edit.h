/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_edit.h - changes an image as a whole: its snapshots, its size, its bitmaps.
 *
 * Nobody else uses the image. An edit goes like this:
 *
 *   begin     the image is checked; one with errors is refused
 *   take ...  places for new tables and further references are noted; nothing is written
 *   raise     the image is marked dirty, counts become as high as all references, old and new
 *   ...       the caller writes tables that nothing refers to yet
 *   publish   one write inside sector 0 makes them the image's
 *   end       counts and flags are made to follow what is referred to, the mark goes away
 *
 * A power cut leaves the old or the new state, perhaps marked dirty; opening repairs that. An error
 * in between ends the same way: `end` makes the counts follow whatever was published.
 *
 * Memory as for a check. Thread: any that may block.
 */
#ifndef STORAGE_QCOW_QCOW_EDIT_H
#define STORAGE_QCOW_QCOW_EDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_check_internal.h"

struct qcow_edit {
    struct qcow_check check; /* its references are those that shall be possible */
    bool is_changed;         /* raise began */
};

/* An L1 table in memory, entries as they stand in the file. */
struct qcow_edit_l1 {
    uint64_t *entries; /* owned */
    uint32_t count;
};

/* When it fails, there is nothing to end. */
ERR_RESULT qcow_edit_begin(struct qcow_edit *edit, struct host_file *file);

/* Unused clusters side by side, referred to once from now on. No bytes: *out_offset is 0. */
ERR_RESULT qcow_edit_take(struct qcow_edit *edit, uint64_t bytes, enum qcow_owner owner,
                          uint64_t *out_offset);

/* Refers to everything that the table leads to once more. ERR_STATE when counts have no room. */
ERR_RESULT qcow_edit_refer_tree(struct qcow_edit *edit, const struct qcow_edit_l1 *l1);

ERR_RESULT qcow_edit_raise(struct qcow_edit *edit);

/* A table at its place: what is there is zeroed up to the end of its last cluster. */
ERR_RESULT qcow_edit_write(struct qcow_edit *edit, const void *data, size_t len, uint64_t offset);
/* What was written before is durable when these bytes of sector 0 are written, and then they are.
 */
ERR_RESULT qcow_edit_publish(struct qcow_edit *edit, const void *fields, size_t len, size_t offset);

/* The same for the disk's size and its L1 table at once. */
ERR_RESULT qcow_edit_publish_disk(struct qcow_edit *edit, uint64_t virtual_bytes,
                                  uint32_t l1_entries, uint64_t l1_offset);

/* Ends it, with the error that it had so far or NULL; gives the first error. */
ERR_RESULT qcow_edit_end(struct qcow_edit *edit, struct err *err);

ERR_RESULT qcow_edit_l1_load(const struct qcow_edit *edit, uint64_t offset, uint32_t count,
                             struct qcow_edit_l1 *out_l1);
void qcow_edit_l1_finish(struct qcow_edit_l1 *l1); /* accepts a zeroed one */
ERR_RESULT qcow_edit_l1_write(struct qcow_edit *edit, const struct qcow_edit_l1 *l1,
                              uint64_t offset);

/* "May be written in place" goes from these entries and, in the file, from all below them. */
ERR_RESULT qcow_edit_l1_share(struct qcow_edit *edit, struct qcow_edit_l1 *l1);

#endif
