/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_repair_counts.h - the refcounts of an image, made to follow the references that a check
 * found.
 */
#ifndef STORAGE_QCOW_QCOW_REPAIR_COUNTS_H
#define STORAGE_QCOW_QCOW_REPAIR_COUNTS_H

#include "base/err.h"

struct qcow_check;

/* In place, where counts are above the references; durable when it returns. */
ERR_RESULT qcow_repair_counts_lower(struct qcow_check *check);

/* In place, where counts are below the references, which all have room in their width; durable when
 * it returns. Where blocks are missing, all are rebuilt. */
ERR_RESULT qcow_repair_counts_raise(struct qcow_check *check);
ERR_RESULT qcow_repair_counts_have_room(const struct qcow_check *check);

/* New blocks and a new table behind the end of the file, to which one write of the header changes
 * over. Old ones are free space afterwards. */
ERR_RESULT qcow_repair_counts_rebuild(struct qcow_check *check);

#endif
