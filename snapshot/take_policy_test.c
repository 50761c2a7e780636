/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "snapshot/take_policy.h"

static const struct take_limits limits = {
    .pause_us_wanted = 5000,
    .pause_us_max = 50000,
    .staged_pages_max = 100000,
    .rounds_max = 20,
};

TEST(each_situation_has_its_verdict)
{
    static const struct {
        struct take_progress progress;
        enum take_verdict verdict;
    } rows[] = {
        /* dirty, staged, rounds, ns a page */
        {{0, 0, 0, 1000}, TAKE_CUT},
        {{5000, 0, 0, 1000}, TAKE_CUT},
        {{5001, 0, 0, 1000}, TAKE_STAGE_ROUND},
        {{5001, 0, 0, 500}, TAKE_CUT},
        {{99999, 0, 3, 1000}, TAKE_STAGE_ROUND},
        {{100001, 0, 3, 1000}, TAKE_WRITE_ROUND},
        {{50000, 60000, 3, 1000}, TAKE_WRITE_ROUND},
        {{100, 99950, 3, 1000}, TAKE_WRITE_ROUND},
        {{50000, 0, 20, 1000}, TAKE_CUT},
        {{50001, 0, 20, 1000}, TAKE_GIVE_UP},
        {{100, 99950, 20, 1000}, TAKE_GIVE_UP},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        assert_int_equal(take_decide(rows[i].progress, limits), rows[i].verdict);
}

TEST(a_guest_that_slows_down_is_cut_as_soon_as_it_fits)
{
    struct take_progress progress = {.dirty_pages = 80000, .copy_ns_per_page = 1000};

    while (take_decide(progress, limits) == TAKE_STAGE_ROUND) {
        progress.dirty_pages /= 2;
        progress.rounds_done++;
    }

    assert_int_equal(take_decide(progress, limits), TAKE_CUT);
    assert_int_equal(progress.rounds_done, 4);
    assert_int_equal(take_pause_us(progress), 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_situation_has_its_verdict),
        cmocka_unit_test(a_guest_that_slows_down_is_cut_as_soon_as_it_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
