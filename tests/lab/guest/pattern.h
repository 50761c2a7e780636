/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pattern.h - what a page or a disk block holds, given its place and its generation.
 *
 * Every word depends on all three, so that a page that is torn, old or somewhere else shows.
 */
#ifndef TESTS_LAB_GUEST_PATTERN_H
#define TESTS_LAB_GUEST_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATTERN_BYTES = 4096, PATTERN_WORDS = PATTERN_BYTES / 8 };

static inline uint64_t pattern_word(uint64_t generation, uint64_t place, uint64_t index)
{
    return generation * 0x9e3779b97f4a7c15ull + place * 0xc2b2ae3d27d4eb4full +
           (index ^ generation << 32);
}

static inline void pattern_fill(uint64_t *words, uint64_t generation, uint64_t place)
{
    for (size_t index = 0; index < PATTERN_WORDS; index++)
        words[index] = pattern_word(generation, place, index);
}

static inline bool pattern_matches(const uint64_t *words, uint64_t generation, uint64_t place)
{
    uint64_t wrong = 0;

    for (size_t index = 0; index < PATTERN_WORDS; index++)
        wrong |= words[index] ^ pattern_word(generation, place, index);
    return wrong == 0;
}

#endif
