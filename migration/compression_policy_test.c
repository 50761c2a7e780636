/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unit_test.h"
#include "migration/compression_policy.h"

/* A window in which `mib` MiB of pages left in a second, blocked for so many percent of it. */
static void window(struct compression_policy *policy, uint64_t mib, uint64_t blocked_percent)
{
    compression_policy_window(policy, (struct compression_window){
                                          .page_bytes = mib << 20,
                                          .elapsed_ns = 1000000000,
                                          .blocked_ns = blocked_percent * 10000000,
                                      });
}

TEST(a_sender_that_never_waits_does_not_compress)
{
    struct compression_policy policy = {0};

    for (int i = 0; i < 100; i++)
        window(&policy, 1000, 10);

    assert_false(policy.is_on);
}

TEST(a_slow_link_makes_a_trial_and_a_gain_keeps_it)
{
    struct compression_policy policy = {0};

    window(&policy, 100, 90);
    assert_true(policy.is_on);
    window(&policy, 220, 60);

    assert_true(policy.is_on);
}

TEST(a_trial_without_gain_ends_and_the_next_waits_longer)
{
    struct compression_policy policy = {0};
    int trials = 0;

    for (int i = 0; i < 100; i++) {
        window(&policy, 100, 90); /* no faster, compressed or not */
        trials += policy.is_on;
    }

    assert_false(policy.is_on);
    assert_in_range(trials, 2, 8);
}

TEST(the_raw_rate_is_measured_again_now_and_then)
{
    struct compression_policy policy = {0};
    int raw_windows = 0;

    for (int i = 0; i < 100; i++) {
        raw_windows += !policy.is_on;
        window(&policy, policy.is_on ? 200 : 100, 90);
    }

    assert_in_range(raw_windows, 2, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sender_that_never_waits_does_not_compress),
        cmocka_unit_test(a_slow_link_makes_a_trial_and_a_gain_keeps_it),
        cmocka_unit_test(a_trial_without_gain_ends_and_the_next_waits_longer),
        cmocka_unit_test(the_raw_rate_is_measured_again_now_and_then),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
