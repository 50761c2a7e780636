/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap.h - bits in 64-bit words, least significant first, over memory that the caller owns.
 *
 * The words may be shared between threads and processes: the functions named atomic use one
 * atomic instruction a word; the others are for a single owner. Counts are of bits.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_WORD_BITS 64u

static inline size_t bitmap_words(uint64_t bit_count)
{
    return (size_t)((bit_count + BITMAP_WORD_BITS - 1) / BITMAP_WORD_BITS);
}

static inline size_t bitmap_bytes(uint64_t bit_count)
{
    return bitmap_words(bit_count) * sizeof(uint64_t);
}

static inline bool bitmap_test(const uint64_t *words, uint64_t index)
{
    return (words[index / BITMAP_WORD_BITS] >> (index % BITMAP_WORD_BITS) & 1) != 0;
}

static inline void bitmap_set(uint64_t *words, uint64_t index)
{
    words[index / BITMAP_WORD_BITS] |= (uint64_t)1 << (index % BITMAP_WORD_BITS);
}

static inline void bitmap_clear(uint64_t *words, uint64_t index)
{
    words[index / BITMAP_WORD_BITS] &= ~((uint64_t)1 << (index % BITMAP_WORD_BITS));
}

void bitmap_set_range(uint64_t *words, uint64_t first, uint64_t count);
void bitmap_clear_range(uint64_t *words, uint64_t first, uint64_t count);
uint64_t bitmap_count(const uint64_t *words, uint64_t bit_count);

/* The first set (clear) bit in [from, bit_count), or bit_count. */
uint64_t bitmap_next_set(const uint64_t *words, uint64_t bit_count, uint64_t from);
uint64_t bitmap_next_clear(const uint64_t *words, uint64_t bit_count, uint64_t from);

/* Release order: what the setter wrote before is seen by who takes the bit. */
void bitmap_atomic_set(uint64_t *words, uint64_t index);
void bitmap_atomic_or_word(uint64_t *words, size_t word, uint64_t bits);

/* Takes a whole word and leaves zero, in acquire order. */
uint64_t bitmap_atomic_take_word(uint64_t *words, size_t word);

#endif
