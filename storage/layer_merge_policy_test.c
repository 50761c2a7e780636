/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/layer_merge_policy.h"

static void fill(uint64_t *bytes, unsigned first, unsigned count, uint64_t value)
{
    for (unsigned i = 0; i < count; i++)
        bytes[first + i] = value;
}

TEST(short_chains_are_left_alone)
{
    uint64_t bytes[LAYER_MERGE_FROM] = {0};
    struct layer_range range;

    for (unsigned count = 0; count < LAYER_MERGE_FROM; count++)
        assert_false(layer_merge_choose(bytes, count, &range));
    assert_true(layer_merge_choose(bytes, LAYER_MERGE_FROM, &range));
}

TEST(layers_of_one_size_are_merged)
{
    static const struct row {
        const char *what;
        unsigned small_first, small_count; /* of 1 MiB; the others have 10 GiB */
        struct layer_range wanted;
    } rows[] = {
        {"the newest", 16, 48, {16, 63}},
        {"those in the middle", 12, 40, {12, 51}},
        {"large ones, where they are more, and what is above them", 40, 24, {1, 48}},
        {"as many as are merged at a time", 1, 63, {1, 48}},
        {"never the lowest", 0, 34, {1, 33}},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t bytes[64];
        struct layer_range range;
        fill(bytes, 0, 64, 10 * GIB);
        fill(bytes, rows[i].small_first, rows[i].small_count, MIB);
        assert_true(layer_merge_choose(bytes, 64, &range));
        if (range.first != rows[i].wanted.first || range.last != rows[i].wanted.last)
            fail_msg("%s: %u to %u", rows[i].what, range.first, range.last);
    }
}

/* A machine that is saved again and again: after each save one more layer of a MiB. */
TEST(chains_stay_short_and_bytes_are_copied_seldom)
{
    uint64_t bytes[DISK_BACKING_DEPTH_MAX + 1] = {100 * GIB};
    uint64_t copied = 0;
    unsigned count = 1;
    const unsigned saves = 20000;

    for (unsigned save = 0; save < saves; save++) {
        struct layer_range range;
        bytes[count++] = MIB;
        if (!layer_merge_choose(bytes, count, &range))
            continue;
        assert_true(range.first >= 1 && range.first < range.last && range.last < count);
        uint64_t sum = 0;
        for (unsigned i = range.first; i <= range.last; i++)
            sum += bytes[i]; /* at worst: nothing was written twice */
        copied += sum;
        bytes[range.first] = sum;
        memmove(&bytes[range.first + 1], &bytes[range.last + 1],
                (count - range.last - 1) * sizeof(bytes[0]));
        count -= range.last - range.first;
        assert_true(count < LAYER_MERGE_FROM);
    }

    assert_true(copied < (uint64_t)saves * MIB * 4);
}

TEST(huge_layers_do_not_overflow)
{
    uint64_t bytes[DISK_BACKING_DEPTH_MAX];
    struct layer_range range;

    fill(bytes, 0, DISK_BACKING_DEPTH_MAX, UINT64_MAX);
    assert_true(layer_merge_choose(bytes, DISK_BACKING_DEPTH_MAX, &range));
    assert_true(range.first >= 1 && range.last < DISK_BACKING_DEPTH_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_chains_are_left_alone),
        cmocka_unit_test(layers_of_one_size_are_merged),
        cmocka_unit_test(chains_stay_short_and_bytes_are_copied_seldom),
        cmocka_unit_test(huge_layers_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
