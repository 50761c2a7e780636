/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_compressed.h - unpacks and packs one compressed cluster.
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

/* Packs a cluster so that every reader can unpack it. Gives the length, 0 when the stream would not
 * fit into `capacity` bytes. */
ERR_RESULT qcow_compressed_pack(enum qcow_compression compression, const void *data, size_t len,
                                void *out_data, size_t capacity, size_t *out_len);

#endif
