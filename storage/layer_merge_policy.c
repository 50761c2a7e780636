/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_merge_policy.c - see layer_merge_policy.h.
 */
#include "storage/layer_merge_policy.h"

#include "base/checked_math.h"

#define FILE_COST ((uint64_t)1 << 16) /* of a layer that holds nothing, in bytes copied */

struct candidate {
    struct layer_range range; /* last 0: none */
    double cost;              /* bytes copied */
    double growth;            /* cost by that of the largest layer */
};

static bool is_better(const struct candidate *one, const struct candidate *other)
{
    if (one->growth != other->growth)
        return one->growth > other->growth;
    return one->cost < other->cost;
}

/* The best range that starts at this layer. */
static struct candidate best_from(const uint64_t *bytes, unsigned count, unsigned first)
{
    struct candidate best = {.range = {0, 0}};
    double cost = 0, largest = 0;

    for (unsigned last = first; last < MIN(count, first + LAYER_MERGE_MOST); last++) {
        double own = (double)bytes[last] + (double)FILE_COST;
        cost += own;
        largest = MAX(largest, own);
        struct candidate candidate = {{first, last}, cost, cost / largest};
        if (last - first + 1 >= LAYER_MERGE_FEWEST &&
            (best.range.last == 0 || is_better(&candidate, &best)))
            best = candidate;
    }
    return best;
}

bool layer_merge_choose(const uint64_t *bytes, unsigned count, struct layer_range *out_range)
{
    struct candidate best = {.range = {0, 0}};

    if (count < LAYER_MERGE_FROM)
        return false;
    for (unsigned first = 1; first < count; first++) {
        struct candidate candidate = best_from(bytes, count, first);
        if (candidate.range.last != 0 && (best.range.last == 0 || is_better(&candidate, &best)))
            best = candidate;
    }
    *out_range = best.range;
    return best.range.last != 0;
}
