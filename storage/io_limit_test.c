/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/unit_test.h"
#include "storage/io_limit.h"

/* How many uses of `amount` begin within a second from start_ns. */
static unsigned uses_in_a_second(struct io_limit *limit, uint64_t start_ns, uint64_t amount)
{
    unsigned count = 0;

    for (uint64_t now = start_ns; now < start_ns + NS_PER_S; now += NS_PER_MS)
        while (io_limit_begin_ns(limit) <= now && count < 100000) {
            io_limit_use(limit, now, amount);
            count++;
        }
    return count;
}

TEST(without_a_limit_everything_begins_at_once)
{
    struct io_limit limit = {.per_second = 0};

    assert_int_equal(uses_in_a_second(&limit, 5 * NS_PER_S, 1), 100000);
}

TEST(a_limit_holds_on_the_average_with_a_tenth_to_make_up_for)
{
    struct io_limit limit = {.per_second = 500};

    assert_in_range(uses_in_a_second(&limit, 10 * NS_PER_S, 1), 545, 555);
    assert_in_range(uses_in_a_second(&limit, 11 * NS_PER_S, 1), 495, 505);
    assert_in_range(uses_in_a_second(&limit, 60 * NS_PER_S, 1), 545, 555);
}

TEST(a_use_larger_than_a_second_is_paid_for_afterwards)
{
    struct io_limit limit = {.per_second = 1000};

    io_limit_use(&limit, 10 * NS_PER_S, 3000);

    assert_in_range(io_limit_begin_ns(&limit), 12 * NS_PER_S, 13 * NS_PER_S);
    io_limit_use(&limit, 13 * NS_PER_S, UINT64_MAX);
    assert_true(io_limit_begin_ns(&limit) > 4000000 * NS_PER_S);
}

TEST(another_rate_holds_at_once_and_the_same_one_changes_nothing)
{
    struct io_limit limit = {.per_second = 1};

    io_limit_use(&limit, 10 * NS_PER_S, 500);
    io_limit_set(&limit, 11 * NS_PER_S, 1);
    assert_true(io_limit_begin_ns(&limit) > 500 * NS_PER_S);
    io_limit_set(&limit, 11 * NS_PER_S, 500);

    assert_int_equal(io_limit_begin_ns(&limit), 11 * NS_PER_S);
    assert_in_range(uses_in_a_second(&limit, 11 * NS_PER_S, 1), 495, 505);
    io_limit_set(&limit, 12 * NS_PER_S, 0);
    assert_int_equal(uses_in_a_second(&limit, 12 * NS_PER_S, 1), 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_everything_begins_at_once),
        cmocka_unit_test(a_limit_holds_on_the_average_with_a_tenth_to_make_up_for),
        cmocka_unit_test(a_use_larger_than_a_second_is_paid_for_afterwards),
        cmocka_unit_test(another_rate_holds_at_once_and_the_same_one_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
