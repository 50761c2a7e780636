/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blackout.h - how long nobody ran the guest, from times of two hosts.
 *
 * Pure. The target says when it entered the guest on a clock of its own, of which the distance to
 * ours is known to half of the quickest round trip: on a busy host milliseconds. But it entered the
 * guest after we sent commit and before we heard of it, and both we know by our own clock.
 */
#ifndef MIGRATION_BLACKOUT_H
#define MIGRATION_BLACKOUT_H

#include <stdint.h>

struct blackout_times {
    uint64_t paused_ns;    /* our last exit from the guest */
    uint64_t committed_ns; /* before commit was sent */
    uint64_t answered_ns;  /* after 'running' had come */
    uint64_t entered_ns;   /* the target's, on its clock */
    int64_t clock_offset_ns;
};

uint64_t blackout_ns(struct blackout_times times);

#endif
