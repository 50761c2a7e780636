/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_limit.h - so much a second, on the average.
 *
 * Each use moves the time at which the next one may begin. What was not used for a while may be
 * made up for, of a tenth of a second at most; one use larger than that goes through at once and
 * is paid for afterwards. A value: no lock, no clock of its own.
 */
#ifndef STORAGE_IO_LIMIT_H
#define STORAGE_IO_LIMIT_H

#include <stdint.h>

struct io_limit {
    uint64_t per_second; /* 0: no limit; DISK_RATE_MAX at most */
    uint64_t free_at_ns; /* when all that was used is paid for */
};

/* When the next use may begin, on the clock of now_ns; not after now_ns: at once. */
uint64_t io_limit_begin_ns(const struct io_limit *limit);
/* Another rate, from now_ns on: what was used before is paid for. */
void io_limit_set(struct io_limit *limit, uint64_t now_ns, uint64_t per_second);
/* Uses `amount`, at most UINT32_MAX at once. */
void io_limit_use(struct io_limit *limit, uint64_t now_ns, uint64_t amount);

#endif
