/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_directory.h - the list of an image's bitmaps as it stands in the file. Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_BITMAP_DIRECTORY_H
#define STORAGE_QCOW_QCOW_BITMAP_DIRECTORY_H

#include "storage/qcow/qcow_bitmap.h"

/* Of a set whose bitmaps have their tables; free() *out_data. */
ERR_RESULT qcow_bitmap_directory_build(const struct qcow_bitmap_set *set, uint8_t **out_data,
                                       size_t *out_len);

/* The bits that a bitmap of this granularity needs for a disk. */
uint64_t qcow_bitmap_bit_count(uint64_t virtual_bytes, unsigned granularity_bits);

/* ERR_INVALID: that would be more than a bitmap may take. */
ERR_RESULT qcow_bitmap_check_size(uint64_t virtual_bytes, unsigned granularity_bits);

#endif
