/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blackout.c - see blackout.h.
 */
#include "migration/blackout.h"

uint64_t blackout_ns(struct blackout_times times)
{
    uint64_t entered_ns = times.entered_ns - (uint64_t)times.clock_offset_ns;

    /* By the distances, since the offset may be anything. */
    if ((int64_t)(entered_ns - times.committed_ns) < 0)
        entered_ns = times.committed_ns;
    if ((int64_t)(times.answered_ns - entered_ns) < 0)
        entered_ns = times.answered_ns;
    return entered_ns - times.paused_ns;
}
