/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_limit.c - see io_limit.h.
 */
#include "storage/io_limit.h"

#include "base/checked_math.h"
#include "base/clock.h"

#define BURST_NS (NS_PER_S / 10)

uint64_t io_limit_begin_ns(const struct io_limit *limit)
{
    return limit->free_at_ns;
}

void io_limit_set(struct io_limit *limit, uint64_t now_ns, uint64_t per_second)
{
    if (per_second == limit->per_second)
        return;
    limit->per_second = per_second;
    limit->free_at_ns = MIN(limit->free_at_ns, now_ns);
}

void io_limit_use(struct io_limit *limit, uint64_t now_ns, uint64_t amount)
{
    if (limit->per_second == 0)
        return;

    uint64_t earliest = now_ns > BURST_NS ? now_ns - BURST_NS : 0;
    uint64_t price_ns = MIN(amount, (uint64_t)UINT32_MAX) * NS_PER_S / limit->per_second;
    limit->free_at_ns = MAX(limit->free_at_ns, earliest) + price_ns;
}
