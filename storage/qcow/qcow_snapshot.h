/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_snapshot.h - snapshots inside an image: take, go back to, delete.
 *
 * A snapshot is a second L1 table that leads to the same L2 tables and data; counts say what is
 * shared. Each operation survives a power cut at any moment: the old or the new state is there, all
 * snapshots hold what they held, and counts are put right when the image is next opened. Version 2
 * has no mark that asks for that; its counts may then be too high, which wastes space only.
 *
 * An operation that can not be done is refused before anything changes. Thread: any that may block;
 * nobody else uses the image.
 */
#ifndef STORAGE_QCOW_QCOW_SNAPSHOT_H
#define STORAGE_QCOW_QCOW_SNAPSHOT_H

#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_snapshot_table.h"

struct host_file;

#define QCOW_SNAPSHOT_NAME_MAX 255u /* bytes; what QEMU shows */

/* Also of an image that is in use. */
ERR_RESULT qcow_snapshot_list(struct host_file *file, struct qcow_snapshot_table *out_table);

/* By id or name, which must not be those of two, or by "id=ID" or "name=NAME". ERR_NOT_FOUND,
 * ERR_STATE. */
ERR_RESULT qcow_snapshot_find(const struct qcow_snapshot_table *table, const char *text,
                              const struct qcow_snapshot **out_snapshot);

/* Of the disk only. ERR_STATE: the name is taken, or there is no room for more. */
ERR_RESULT qcow_snapshot_create(struct host_file *file, const char *name, uint64_t date_ns);

/* The disk holds, and is as large as, what it was. What was written since is lost. Bitmaps say
 * afterwards that everything has changed; a power cut in the middle leaves none. */
ERR_RESULT qcow_snapshot_apply(struct host_file *file, const char *id_or_name);

ERR_RESULT qcow_snapshot_delete(struct host_file *file, const char *id_or_name);

#endif
