/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.h - the time, which tests can replace.
 *
 * Thread: any. A fake clock stands still until clock_fake_advance(); it is process-wide.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_US ((uint64_t)1000)
#define NS_PER_MS ((uint64_t)1000000)
#define NS_PER_S  ((uint64_t)1000000000)

uint64_t clock_monotonic_ns(void); /* CLOCK_MONOTONIC */
uint64_t clock_realtime_ns(void);  /* since 1970, UTC */

/* Tests only: freeze both clocks at these values, move them, thaw them. */
void clock_fake_start(uint64_t monotonic_ns, uint64_t realtime_ns);
void clock_fake_advance(uint64_t ns);
void clock_fake_stop(void);

#endif
