/* SPDX-License-Identifier: Apache-2.0 */
/* check_status.h - the line that a check keeps about itself, and its largest gap. */
#ifndef TESTS_LAB_GUEST_CHECK_STATUS_H
#define TESTS_LAB_GUEST_CHECK_STATUS_H

#include <stdbool.h>
#include <stdint.h>

struct check_status {
    const char *name;
    uint64_t written_ns; /* when the line was last written */
};

struct check_status check_status_of(const char *name);

/* Replaces the line, at most four times a second so that it costs the guest little. */
void check_status_write(struct check_status *status, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The longest time between two events, since the start or since SIGUSR1. */
struct check_gap {
    uint64_t last_ns;
    uint64_t max_ns;
    unsigned generation;
};

void check_gap_event(struct check_gap *gap, uint64_t now_ns);
double check_gap_ms(struct check_gap *gap, uint64_t now_ns); /* counts a gap that still lasts */

uint64_t check_now_ns(void); /* CLOCK_MONOTONIC */

#endif
