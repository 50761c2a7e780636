/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_flush.h - makes what is in memory durable, in the order that a power cut demands.
 */
#ifndef STORAGE_QCOW_QCOW_FLUSH_H
#define STORAGE_QCOW_QCOW_FLUSH_H

#include "storage/qcow/qcow_image_internal.h"

struct err *qcow_flush(struct block *block);

/* For a writer: bounds how much metadata waits in memory. */
ERR_RESULT qcow_flush_if_wanted(struct qcow_image *image);

/* Flushes until nothing is left to write: also the counts of what the last flush released. No
 * other request may be running. */
ERR_RESULT qcow_flush_settle(struct qcow_image *image);

#endif
