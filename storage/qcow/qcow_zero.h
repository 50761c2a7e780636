/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_zero.h - zeroes and discards by changing entries instead of writing data.
 */
#ifndef STORAGE_QCOW_QCOW_ZERO_H
#define STORAGE_QCOW_QCOW_ZERO_H

#include "storage/qcow/qcow_image_internal.h"

struct err *qcow_write_zeroes(struct block *block, uint64_t offset, uint64_t len, bool may_unmap);
struct err *qcow_discard(struct block *block, uint64_t offset, uint64_t len);

#endif
