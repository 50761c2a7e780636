/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_lz4.h - runs of pages as LZ4 blocks.
 *
 * Thread: any.
 */
#ifndef PROTO_PAGE_LZ4_H
#define PROTO_PAGE_LZ4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

/* Pages in one block at most: longer blocks compress hardly better and spoil the cache. */
#define PAGE_LZ4_PAGES_MAX 16u

/* Compresses whole pages; false when that saves less than an eighth, and then `to` holds nothing of
 * use. `to` has room for page_count pages. */
bool page_lz4_compress(const uint8_t *pages, size_t page_count, uint8_t *to, size_t *out_bytes);

/* False unless the block yields exactly page_count pages. */
bool page_lz4_decompress(const uint8_t *from, size_t bytes, uint8_t *pages, size_t page_count);

#endif
