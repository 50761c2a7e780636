/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_zero.h - is a page all zeros?
 */
#ifndef PROTO_PAGE_ZERO_H
#define PROTO_PAGE_ZERO_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/limits.h"

/* A page is zero when its first word is and every byte equals the one a word before it; memcmp is
 * as fast as memory here, and most pages that are not zero say so in their first word. */
static inline bool page_is_zero(const uint8_t *page)
{
    uint64_t first;

    memcpy(&first, page, sizeof(first));
    return first == 0 && memcmp(page, page + sizeof(first), PAGE_BYTES - sizeof(first)) == 0;
}

#endif
