/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chance.h - random choices that a seed repeats. Thread: one for each.
 */
#ifndef STORAGE_TESTING_CHANCE_H
#define STORAGE_TESTING_CHANCE_H

#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"

struct chance {
    uint64_t state;
};

static inline struct chance chance_of(uint64_t seed)
{
    return (struct chance){.state = seed * 2654435761u + 88172645463325252u};
}

static inline uint64_t chance_below(struct chance *chance, uint64_t limit)
{
    ASSERT(limit > 0);
    chance->state ^= chance->state << 13;
    chance->state ^= chance->state >> 7;
    chance->state ^= chance->state << 17;
    return chance->state % limit;
}

/* A number from the environment, for running a test differently. */
static inline uint64_t chance_setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

#endif
