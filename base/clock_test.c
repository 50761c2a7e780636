/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/unit_test.h"

TEST(the_real_clocks_go_forward)
{
    uint64_t before = clock_monotonic_ns();

    assert_true(clock_monotonic_ns() >= before);
    assert_true(clock_realtime_ns() > 1600000000 * NS_PER_S);
}

TEST(a_fake_clock_stands_still_until_it_is_moved)
{
    clock_fake_start(100, 2000);

    assert_int_equal(clock_monotonic_ns(), 100);
    assert_int_equal(clock_realtime_ns(), 2000);
    clock_fake_advance(5 * NS_PER_MS);
    assert_int_equal(clock_monotonic_ns(), 100 + 5 * NS_PER_MS);
    assert_int_equal(clock_realtime_ns(), 2000 + 5 * NS_PER_MS);
    clock_fake_stop();
}

TEST(after_the_fake_the_real_clock_is_back)
{
    uint64_t before = clock_monotonic_ns();
    clock_fake_start(0, 0);

    clock_fake_stop();

    assert_true(clock_monotonic_ns() >= before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_real_clocks_go_forward),
        cmocka_unit_test(a_fake_clock_stands_still_until_it_is_moved),
        cmocka_unit_test(after_the_fake_the_real_clock_is_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
