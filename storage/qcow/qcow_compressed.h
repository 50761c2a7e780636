/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_compressed.h - unpacks one compressed cluster.
 *
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_COMPRESSED_H
#define STORAGE_QCOW_QCOW_COMPRESSED_H

#include <stddef.h>

#include "base/err.h"
#include "storage/qcow/qcow_header.h"

/* Fills exactly out_len bytes; what follows the stream in `data` belongs to others. */
ERR_RESULT qcow_compressed_unpack(enum qcow_compression compression, const void *data, size_t len,
                                  void *out_data, size_t out_len);

#endif
