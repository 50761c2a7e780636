/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_read.h - reads guest bytes through mapping, compression and backing file.
 */
#ifndef STORAGE_QCOW_QCOW_READ_H
#define STORAGE_QCOW_QCOW_READ_H

#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_map.h"

struct err *qcow_read(struct block *block, const struct iovec *iovs, int iov_count,
                      uint64_t offset);

/* The bytes at `offset`, where the extent begins, that the caller holds an exclusive claim on. */
ERR_RESULT qcow_read_extent(struct qcow_image *image, const struct qcow_extent *extent,
                            const struct io_vector *to, uint64_t offset);

/* Does a range that no layer of this image holds read as zeros? */
bool qcow_read_is_zero_below(const struct qcow_image *image, uint64_t offset);

#endif
