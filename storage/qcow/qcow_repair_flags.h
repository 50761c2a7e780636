/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_repair_flags.h - the COPIED flags of the active tables, made to follow the references.
 */
#ifndef STORAGE_QCOW_QCOW_REPAIR_FLAGS_H
#define STORAGE_QCOW_QCOW_REPAIR_FLAGS_H

#include "base/err.h"

struct qcow_check;

/* Where more than one reference is found, or none; durable when it returns. */
ERR_RESULT qcow_repair_flags_clear(struct qcow_check *check);
/* Where exactly one is; durable when it returns. The counts say so already. */
ERR_RESULT qcow_repair_flags_set(struct qcow_check *check);

#endif
