/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_memory.h - a disk in memory, for tests of what sits above a disk.
 *
 * Thread: any.
 */
#ifndef STORAGE_BLOCK_MEMORY_H
#define STORAGE_BLOCK_MEMORY_H

#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"

ERR_RESULT block_memory_create(uint64_t virtual_bytes, struct block **out_block);

/* The content, valid until the block is closed; not to be touched while requests are running. */
uint8_t *block_memory_bytes(struct block *block);
/* How many flushes have succeeded. */
unsigned block_memory_flush_count(struct block *block);
/* The next requests fail with ERR_IO until it is called with false. */
void block_memory_set_failing(struct block *block, bool is_failing);

#endif
