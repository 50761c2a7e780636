/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/bitmap.h"
#include "base/thread.h"
#include "base/unit_test.h"

#define BITS 200u

/* What the functions under test should find, a bit at a time. */
static uint64_t slow_next(const uint64_t *words, uint64_t bit_count, uint64_t from, bool wanted)
{
    while (from < bit_count && bitmap_test(words, from) != wanted)
        from++;
    return from < bit_count ? from : bit_count;
}

TEST(sizes_round_up_to_whole_words)
{
    assert_int_equal(bitmap_words(0), 0);
    assert_int_equal(bitmap_words(1), 1);
    assert_int_equal(bitmap_words(64), 1);
    assert_int_equal(bitmap_words(65), 2);
    assert_int_equal(bitmap_bytes(65), 16);
}

TEST(a_bit_is_set_and_cleared_alone)
{
    uint64_t words[4] = {0};

    bitmap_set(words, 63);
    bitmap_set(words, 64);
    bitmap_clear(words, 63);

    assert_false(bitmap_test(words, 63));
    assert_true(bitmap_test(words, 64));
    assert_int_equal(bitmap_count(words, BITS), 1);
}

TEST(ranges_of_every_place_and_length_are_exact)
{
    for (uint64_t first = 0; first < BITS; first += 3) {
        for (uint64_t count = 0; first + count <= BITS; count += 7) {
            uint64_t words[4] = {0};

            bitmap_set_range(words, first, count);

            assert_int_equal(bitmap_count(words, BITS), count);
            assert_int_equal(bitmap_next_set(words, BITS, 0), count == 0 ? BITS : first);
            bitmap_clear_range(words, first, count);
            assert_int_equal(bitmap_count(words, 256), 0);
        }
    }
}

TEST(clearing_a_range_leaves_its_neighbours)
{
    uint64_t words[4];
    memset(words, 0xff, sizeof(words));

    bitmap_clear_range(words, 60, 70);

    assert_int_equal(bitmap_count(words, 256), 256 - 70);
    assert_true(bitmap_test(words, 59));
    assert_true(bitmap_test(words, 130));
}

TEST(searches_agree_with_looking_at_each_bit)
{
    uint64_t words[4] = {0x8000000000000001, 0, 0xff00ff00ff00ff00, 0x80};

    for (uint64_t from = 0; from <= BITS; from++) {
        assert_int_equal(bitmap_next_set(words, BITS, from), slow_next(words, BITS, from, true));
        assert_int_equal(bitmap_next_clear(words, BITS, from), slow_next(words, BITS, from, false));
    }
}

TEST(bits_beyond_the_count_are_not_seen)
{
    uint64_t words[1] = {(uint64_t)1 << 40};

    assert_int_equal(bitmap_count(words, 40), 0);
    assert_int_equal(bitmap_next_set(words, 40, 0), 40);
    words[0] = ~words[0];
    assert_int_equal(bitmap_next_clear(words, 40, 0), 40);
}

struct hammer {
    uint64_t *words;
    uint64_t first;
};

static void set_every_second_bit(void *argument)
{
    struct hammer *hammer = argument;

    for (uint64_t index = hammer->first; index < 4096; index += 2)
        bitmap_atomic_set(hammer->words, index);
}

TEST(bits_set_by_two_threads_are_each_taken_exactly_once)
{
    uint64_t words[64] = {0};
    struct hammer even = {words, 0};
    struct hammer odd = {words, 1};
    struct thread *threads[2];
    uint64_t taken = 0;

    ASSERT_OK(thread_create(ROLE_TEST, 0, set_every_second_bit, &even, &threads[0]));
    ASSERT_OK(thread_create(ROLE_TEST, 1, set_every_second_bit, &odd, &threads[1]));
    while (taken < 4096)
        for (size_t word = 0; word < 64; word++)
            taken += (uint64_t)__builtin_popcountll(bitmap_atomic_take_word(words, word));
    thread_join(threads[0]);
    thread_join(threads[1]);

    assert_int_equal(taken, 4096);
    assert_int_equal(bitmap_count(words, 4096), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_round_up_to_whole_words),
        cmocka_unit_test(a_bit_is_set_and_cleared_alone),
        cmocka_unit_test(ranges_of_every_place_and_length_are_exact),
        cmocka_unit_test(clearing_a_range_leaves_its_neighbours),
        cmocka_unit_test(searches_agree_with_looking_at_each_bit),
        cmocka_unit_test(bits_beyond_the_count_are_not_seen),
        cmocka_unit_test(bits_set_by_two_threads_are_each_taken_exactly_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
