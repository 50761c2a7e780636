/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take_policy.c - see take_policy.h.
 */
#include "snapshot/take_policy.h"

#include <stdbool.h>

uint64_t take_pause_us(struct take_progress progress)
{
    return progress.dirty_pages * progress.copy_ns_per_page / 1000;
}

enum take_verdict take_decide(struct take_progress progress, struct take_limits limits)
{
    uint64_t pause_us = take_pause_us(progress);
    /* Pages may be staged already, and then need no more room: this errs on the safe side. */
    bool fits_stage = progress.staged_pages + progress.dirty_pages <= limits.staged_pages_max;

    if (fits_stage && pause_us <= limits.pause_us_wanted)
        return TAKE_CUT;
    if (progress.rounds_done < limits.rounds_max)
        return fits_stage ? TAKE_STAGE_ROUND : TAKE_WRITE_ROUND;
    return fits_stage && pause_us <= limits.pause_us_max ? TAKE_CUT : TAKE_GIVE_UP;
}
