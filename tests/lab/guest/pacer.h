/* SPDX-License-Identifier: Apache-2.0 */
/* pacer.h - wakes a check program at a steady rate, without drift. */
#ifndef TESTS_LAB_GUEST_PACER_H
#define TESTS_LAB_GUEST_PACER_H

#include <stdint.h>

/* Returns a file descriptor that is readable at each tick, or -1. */
int pacer_open(uint64_t period_us);

/* Waits for the next tick; ticks that were missed are not made up for. */
void pacer_wait(int pacer);

#endif
