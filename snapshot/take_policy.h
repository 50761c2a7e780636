/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take_policy.h - when to stop a machine for a snapshot: what to do with the pages that changed
 * while the last round was copied. Pure; thread: any.
 */
#ifndef SNAPSHOT_TAKE_POLICY_H
#define SNAPSHOT_TAKE_POLICY_H

#include <stdint.h>

struct take_progress {
    uint64_t dirty_pages;      /* to be copied yet */
    uint64_t staged_pages;     /* copied to RAM, not written yet */
    unsigned rounds_done;      /* after the first one, which copies everything */
    uint64_t copy_ns_per_page; /* to RAM, as measured */
};

struct take_limits {
    uint64_t pause_us_wanted;
    uint64_t pause_us_max;
    uint64_t staged_pages_max;
    unsigned rounds_max;
};

enum take_verdict {
    TAKE_CUT,         /* pause: the rest fits */
    TAKE_STAGE_ROUND, /* copy to RAM, which is fast: rounds converge whatever the store's speed */
    TAKE_WRITE_ROUND, /* too much for that: write to the store first */
    TAKE_GIVE_UP,     /* the guest changes memory faster than it can be copied */
};

enum take_verdict take_decide(struct take_progress progress, struct take_limits limits);

/* How long copying the dirty pages would stop the machine. */
uint64_t take_pause_us(struct take_progress progress);

#endif
