/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_merge_policy.h - which layers of a chain become one, so that it never grows long.
 *
 * Merging from LAYER_MERGE_FROM layers on, and many cheap ones at a time, each byte is copied about
 * once for every fifty times that the number of layers has grown fifty-fold: layers that were
 * merged are large and are left alone until there are many of their size. Thread: any.
 */
#ifndef STORAGE_LAYER_MERGE_POLICY_H
#define STORAGE_LAYER_MERGE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define LAYER_MERGE_FROM   64u /* layers, with the lowest one */
#define LAYER_MERGE_MOST   48u /* at a time */
#define LAYER_MERGE_FEWEST 8u

struct layer_range {
    unsigned first; /* places in the chain, 0 the lowest */
    unsigned last;
};

/* What each of `count` layers takes in bytes, the lowest first. False: nothing is to be done. The
 * lowest, which is no overlay, is never part of it. */
bool layer_merge_choose(const uint64_t *bytes, unsigned count, struct layer_range *out_range);

#endif
