/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "migration/precopy_policy.h"

static const struct precopy_limits limits = {.downtime_ms_max = 300, .rounds_max = 30};

TEST(verdicts_by_table)
{
    static const struct {
        const char *situation;
        struct precopy_progress progress;
        enum precopy_verdict verdict;
    } rows[] = {
        {"nothing left",
         {.rounds_done = 1, .left_pages = 0, .pages_per_second = 0},
         PRECOPY_STOP_GUEST},
        {"a few pages left",
         {.rounds_done = 1, .left_pages = 100, .pages_per_second = 250000},
         PRECOPY_STOP_GUEST},
        {"fits, and still shrinking: a shorter blackout is to be had",
         {.rounds_done = 2, .left_pages = 50000, .pages_per_second = 250000},
         PRECOPY_CONTINUE},
        {"fits, and shrinks no further",
         {.rounds_done = 3,
          .left_pages = 50000,
          .left_pages_min = 49000,
          .rounds_since_min = 1,
          .pages_per_second = 250000},
         PRECOPY_STOP_GUEST},
        {"does not fit, but has not been tried often",
         {.rounds_done = 3,
          .left_pages = 500000,
          .rounds_since_min = 2,
          .pages_per_second = 250000},
         PRECOPY_CONTINUE},
        {"does not fit and does not shrink",
         {.rounds_done = 9,
          .left_pages = 500000,
          .rounds_since_min = 6,
          .pages_per_second = 250000},
         PRECOPY_GIVE_UP},
        {"rounds used up",
         {.rounds_done = 30, .left_pages = 500000, .pages_per_second = 250000},
         PRECOPY_GIVE_UP},
        {"nothing left, but a host takes longer than the budget by itself",
         {.rounds_done = 30, .left_pages = 0, .round_trip_ns = 400000000},
         PRECOPY_GIVE_UP},
        {"round trips alone exceed the budget",
         {.rounds_done = 30,
          .left_pages = 1,
          .pages_per_second = 250000,
          .round_trip_ns = 400000000},
         PRECOPY_GIVE_UP},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        print_message("%s\n", rows[i].situation);
        assert_int_equal(precopy_decide(rows[i].progress, limits), rows[i].verdict);
    }
}

TEST(the_blackout_grows_with_what_is_left)
{
    struct precopy_progress progress = {.left_pages = 1000, .pages_per_second = 100000};

    uint64_t small_ns = precopy_blackout_ns(progress);
    progress.left_pages = 2000;

    assert_int_equal(precopy_blackout_ns(progress) - small_ns, 10000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts_by_table),
        cmocka_unit_test(the_blackout_grows_with_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
