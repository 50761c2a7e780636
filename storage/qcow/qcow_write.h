/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write.h - writes guest bytes: in place where the image alone holds them, else into new
 * clusters.
 */
#ifndef STORAGE_QCOW_QCOW_WRITE_H
#define STORAGE_QCOW_QCOW_WRITE_H

#include "storage/qcow/qcow_image_internal.h"

struct err *qcow_write(struct block *block, const struct iovec *iovs, int iov_count,
                       uint64_t offset);

#endif
