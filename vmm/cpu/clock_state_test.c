/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/unit_test.h"
#include "vmm/cpu/clock_state.h"

TEST(a_tsc_advances_by_the_time_that_has_passed)
{
    assert_int_equal(tsc_advance(1000, 0, 2596144), 1000);
    assert_int_equal(tsc_advance(0, NS_PER_S, 2596144), 2596144000u);
    /* A year, without overflow. */
    assert_int_equal(tsc_advance(5, (uint64_t)31536000 * NS_PER_S, 4000000),
                     (uint64_t)31536000 * 4000000000u + 5);
}

TEST(only_a_really_different_frequency_needs_a_host_that_scales)
{
    assert_int_equal(tsc_judge(2596144, 2596144), TSC_SAME);
    assert_int_equal(tsc_judge(2596144, 2596300), TSC_SAME);
    assert_int_equal(tsc_judge(2596144, 2600000), TSC_TOLERATE);
    assert_int_equal(tsc_judge(2000000, 2600000), TSC_SCALE);
    assert_int_equal(tsc_judge(2600000, 2000000), TSC_SCALE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tsc_advances_by_the_time_that_has_passed),
        cmocka_unit_test(only_a_really_different_frequency_needs_a_host_that_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
