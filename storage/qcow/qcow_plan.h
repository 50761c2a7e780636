/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_plan.h - where the bytes of a request lie, told without waiting for the host.
 */
#ifndef STORAGE_QCOW_QCOW_PLAN_H
#define STORAGE_QCOW_QCOW_PLAN_H

#include "storage/qcow/qcow_image_internal.h"

/* See block.h. Planned are reads of data, of zeros and of what the backing can plan, writes over
 * data in a place of its own, and writes to new places around which nothing has to be copied, as
 * long as the mapping is in memory. */
bool qcow_plan(struct block *block, enum block_request_kind kind, uint64_t offset, uint64_t len,
               struct block_plan *plan);
void qcow_plan_end(struct block *block, struct block_hold *base, enum block_outcome outcome);

void qcow_plan_finish(struct qcow_image *image); /* when the image is closed */

#endif
