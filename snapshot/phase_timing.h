/* SPDX-License-Identifier: Apache-2.0 */
/*
 * phase_timing.h - how long each phase of a save or restore took.
 */
#ifndef SNAPSHOT_PHASE_TIMING_H
#define SNAPSHOT_PHASE_TIMING_H

#include <stddef.h>
#include <stdint.h>

#define PHASES_MAX 16u

struct phase_timings {
    struct {
        const char *phase;
        uint64_t us;
    } rows[PHASES_MAX];
    size_t count;
};

#endif
