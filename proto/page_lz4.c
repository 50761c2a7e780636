/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_lz4.c - see page_lz4.h.
 */
#include "proto/page_lz4.h"

#include <lz4.h>

bool page_lz4_compress(const uint8_t *pages, size_t page_count, uint8_t *to, size_t *out_bytes)
{
    int raw_bytes = (int)(page_count * PAGE_BYTES);
    int bytes_max = raw_bytes - raw_bytes / 8;
    int bytes = LZ4_compress_default((const char *)pages, (char *)to, raw_bytes, bytes_max);

    if (bytes <= 0)
        return false;
    *out_bytes = (size_t)bytes;
    return true;
}

bool page_lz4_decompress(const uint8_t *from, size_t bytes, uint8_t *pages, size_t page_count)
{
    int raw_bytes = (int)(page_count * PAGE_BYTES);

    return LZ4_decompress_safe((const char *)from, (char *)pages, (int)bytes, raw_bytes) ==
           raw_bytes;
}
