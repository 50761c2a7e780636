/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap.c - see bitmap.h.
 */
#include "base/bitmap.h"

/* The bits of one word that [first, first + count) covers. */
static uint64_t word_mask(uint64_t first, uint64_t count)
{
    uint64_t low = first % BITMAP_WORD_BITS;
    uint64_t span = count < BITMAP_WORD_BITS - low ? count : BITMAP_WORD_BITS - low;
    uint64_t ones = span == BITMAP_WORD_BITS ? ~(uint64_t)0 : ((uint64_t)1 << span) - 1;

    return ones << low;
}

void bitmap_set_range(uint64_t *words, uint64_t first, uint64_t count)
{
    while (count != 0) {
        uint64_t step = BITMAP_WORD_BITS - first % BITMAP_WORD_BITS;
        words[first / BITMAP_WORD_BITS] |= word_mask(first, count);
        step = step < count ? step : count;
        first += step;
        count -= step;
    }
}

void bitmap_clear_range(uint64_t *words, uint64_t first, uint64_t count)
{
    while (count != 0) {
        uint64_t step = BITMAP_WORD_BITS - first % BITMAP_WORD_BITS;
        words[first / BITMAP_WORD_BITS] &= ~word_mask(first, count);
        step = step < count ? step : count;
        first += step;
        count -= step;
    }
}

uint64_t bitmap_count(const uint64_t *words, uint64_t bit_count)
{
    uint64_t count = 0;
    uint64_t full = bit_count / BITMAP_WORD_BITS;

    for (uint64_t i = 0; i < full; i++)
        count += (uint64_t)__builtin_popcountll(words[i]);
    if (bit_count % BITMAP_WORD_BITS != 0)
        count += (uint64_t)__builtin_popcountll(words[full] &
                                                word_mask(0, bit_count % BITMAP_WORD_BITS));
    return count;
}

/* Words are read inverted by `flip` so that one search serves set and clear bits. */
static uint64_t next_bit(const uint64_t *words, uint64_t bit_count, uint64_t from, uint64_t flip)
{
    while (from < bit_count) {
        uint64_t word = (words[from / BITMAP_WORD_BITS] ^ flip) >> (from % BITMAP_WORD_BITS);
        if (word != 0) {
            uint64_t found = from + (uint64_t)__builtin_ctzll(word);
            return found < bit_count ? found : bit_count;
        }
        from += BITMAP_WORD_BITS - from % BITMAP_WORD_BITS;
    }
    return bit_count;
}

uint64_t bitmap_next_set(const uint64_t *words, uint64_t bit_count, uint64_t from)
{
    return next_bit(words, bit_count, from, 0);
}

uint64_t bitmap_next_clear(const uint64_t *words, uint64_t bit_count, uint64_t from)
{
    return next_bit(words, bit_count, from, ~(uint64_t)0);
}

void bitmap_atomic_set(uint64_t *words, uint64_t index)
{
    bitmap_atomic_or_word(words, (size_t)(index / BITMAP_WORD_BITS),
                          (uint64_t)1 << (index % BITMAP_WORD_BITS));
}

void bitmap_atomic_or_word(uint64_t *words, size_t word, uint64_t bits)
{
    /* Release pairs with the acquire of bitmap_atomic_take_word: the page's content precedes its
     * bit. */
    __atomic_fetch_or(&words[word], bits, __ATOMIC_RELEASE);
}

uint64_t bitmap_atomic_take_word(uint64_t *words, size_t word)
{
    /* A plain load first: most words are zero and need not bounce between cores. */
    if (__atomic_load_n(&words[word], __ATOMIC_RELAXED) == 0)
        return 0;
    /* Acquire pairs with bitmap_atomic_or_word; release orders our earlier reads before the clear.
     */
    return __atomic_exchange_n(&words[word], 0, __ATOMIC_ACQ_REL);
}
