/* SPDX-License-Identifier: Apache-2.0 */
/*
 * precopy_policy.c - see precopy_policy.h.
 */
#include "migration/precopy_policy.h"

#include <stdbool.h>

#include "base/checked_math.h"
#include "base/clock.h"

/* Stop, drain disks, save, load, take locks, go on: what a blackout costs with nothing to send. */
#define FIXED_NS (8u * NS_PER_MS)

/* The end of data, ready, commit, running. */
#define ROUND_TRIPS 2u

/* Less than this to send, and another round would only find what was written meanwhile. */
#define REST_NS_SMALL (2u * NS_PER_MS)

#define ROUNDS_WITHOUT_GAIN_MAX 6u

static uint64_t rest_ns(struct precopy_progress progress)
{
    uint64_t pages_per_ms = MAX(progress.pages_per_second / 1000, (uint64_t)1);

    return progress.left_pages * NS_PER_MS / pages_per_ms;
}

uint64_t precopy_blackout_ns(struct precopy_progress progress)
{
    return FIXED_NS + ROUND_TRIPS * progress.round_trip_ns + rest_ns(progress);
}

bool precopy_fits(struct precopy_progress progress, struct precopy_limits limits)
{
    return precopy_blackout_ns(progress) <= (uint64_t)limits.downtime_ms_max * NS_PER_MS;
}

enum precopy_verdict precopy_decide(struct precopy_progress progress, struct precopy_limits limits)
{
    bool fits = precopy_fits(progress, limits);

    if (fits && rest_ns(progress) <= REST_NS_SMALL)
        return PRECOPY_STOP_GUEST;
    /* A rest that fits is still copied down while rounds shrink it: what is not sent in the
     * blackout need not be waited for. */
    if (fits && progress.rounds_since_min > 0)
        return PRECOPY_STOP_GUEST;
    if (progress.rounds_done >= limits.rounds_max)
        return fits ? PRECOPY_STOP_GUEST : PRECOPY_GIVE_UP;
    if (progress.rounds_since_min >= ROUNDS_WITHOUT_GAIN_MAX)
        return PRECOPY_GIVE_UP;
    return PRECOPY_CONTINUE;
}
