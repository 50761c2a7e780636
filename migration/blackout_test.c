/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unit_test.h"
#include "migration/blackout.h"

static const struct blackout_times times = {
    .paused_ns = 1000000,
    .committed_ns = 3000000,
    .answered_ns = 7000000,
};

/* The target's clock is `offset` ahead of ours, and it says that it entered at `entered_ns` of
 * ours. */
static uint64_t measure(uint64_t entered_ns, int64_t offset_ns)
{
    struct blackout_times told = times;

    told.entered_ns = entered_ns + (uint64_t)offset_ns;
    told.clock_offset_ns = offset_ns;
    return blackout_ns(told);
}

TEST(the_clocks_of_two_hosts_may_be_far_apart)
{
    assert_int_equal(measure(4500000, 0), 3500000);
    assert_int_equal(measure(4500000, INT64_C(86400000000000)), 3500000);
    assert_int_equal(measure(4500000, INT64_C(-4000000)), 3500000);
}

TEST(nobody_runs_before_commit_or_after_the_answer)
{
    assert_int_equal(measure(500000, 0), 2000000); /* the offset was wrong by more than it took */
    assert_int_equal(measure(2999999, 0), 2000000);
    assert_int_equal(measure(9000000, 0), 6000000);
    assert_int_equal(measure(9000000, INT64_C(-8000000)), 6000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clocks_of_two_hosts_may_be_far_apart),
        cmocka_unit_test(nobody_runs_before_commit_or_after_the_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
