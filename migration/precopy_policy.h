/* SPDX-License-Identifier: Apache-2.0 */
/*
 * precopy_policy.h - go on copying, stop the guest for the rest, or give up?
 *
 * Pure. The blackout that stopping now would mean is the time for what remains on the link, round
 * trips, and what both hosts need to stop, save, load and go on.
 */
#ifndef MIGRATION_PRECOPY_POLICY_H
#define MIGRATION_PRECOPY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct precopy_limits {
    uint32_t downtime_ms_max;
    uint32_t rounds_max;
};

struct precopy_progress {
    uint32_t rounds_done;
    uint64_t left_pages;       /* dirty now */
    uint64_t left_pages_min;   /* the least after any earlier round */
    uint32_t rounds_since_min; /* 0: this round set a new least */
    uint64_t pages_per_second; /* as measured, 0: not yet */
    uint64_t round_trip_ns;
};

enum precopy_verdict {
    PRECOPY_CONTINUE,
    PRECOPY_STOP_GUEST,
    PRECOPY_GIVE_UP,
};

uint64_t precopy_blackout_ns(struct precopy_progress progress);
bool precopy_fits(struct precopy_progress progress, struct precopy_limits limits);
enum precopy_verdict precopy_decide(struct precopy_progress progress, struct precopy_limits limits);

#endif
