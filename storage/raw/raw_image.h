/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw_image.h - a disk whose bytes are the file's bytes, whatever they look like.
 */
#ifndef STORAGE_RAW_RAW_IMAGE_H
#define STORAGE_RAW_RAW_IMAGE_H

#include "base/err.h"
#include "storage/block.h"

struct host_file;

/* Takes the file, also on failure. The disk has whole sectors of 512 bytes. */
ERR_RESULT raw_image_open(struct host_file *file, bool is_read_only, struct block **out_block);

/* Of a writable block. Whole sectors; durable when it returns. What is added reads as zeros. A
 * block device has the size that it has, and is refused any other. No request is running. */
ERR_RESULT raw_image_resize(struct block *block, uint64_t virtual_bytes);

#endif
