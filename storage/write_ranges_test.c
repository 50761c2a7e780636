/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/write_ranges.h"

TEST(plain_writers_do_not_wait_for_each_other)
{
    struct write_ranges ranges;
    struct write_range first = {.first = 0, .end = 4096}, second = {.first = 512, .end = 1024};
    write_ranges_init(&ranges);

    write_ranges_begin(&ranges, &first);
    assert_true(write_ranges_try_begin(&ranges, &second));

    write_ranges_end(&ranges, &first);
    write_ranges_end(&ranges, &second);
    write_ranges_finish(&ranges);
}

TEST(a_plain_writer_would_wait_for_an_exclusive_one_that_it_touches)
{
    struct write_ranges ranges;
    struct write_range alone = {.first = 4096, .end = 8192};
    struct write_range before = {.first = 0, .end = 4096}, inside = {.first = 8191, .end = 9000};
    write_ranges_init(&ranges);

    write_ranges_begin_exclusive(&ranges, &alone);
    assert_true(write_ranges_try_begin(&ranges, &before));
    assert_false(write_ranges_try_begin(&ranges, &inside));
    write_ranges_end(&ranges, &alone);
    assert_true(write_ranges_try_begin(&ranges, &inside));

    write_ranges_end(&ranges, &before);
    write_ranges_end(&ranges, &inside);
    write_ranges_finish(&ranges);
}

struct contest {
    struct write_ranges ranges;
    unsigned count; /* changed only by who has the range for itself */
};

static void count_alone(void *argument)
{
    struct contest *contest = argument;

    for (unsigned i = 0; i < 2000; i++) {
        struct write_range range = {.first = i % 3, .end = 10};
        write_ranges_begin_exclusive(&contest->ranges, &range);
        contest->count++;
        write_ranges_end(&contest->ranges, &range);
        struct write_range other = {.first = 9, .end = 20};
        write_ranges_begin(&contest->ranges, &other);
        write_ranges_end(&contest->ranges, &other);
    }
}

TEST(an_exclusive_range_is_one_threads_alone)
{
    struct contest contest = {.count = 0};
    struct thread *threads[4];
    write_ranges_init(&contest.ranges);

    for (unsigned i = 0; i < 4; i++)
        ASSERT_OK(thread_create(ROLE_TEST, i, count_alone, &contest, &threads[i]));
    for (unsigned i = 0; i < 4; i++)
        thread_join(threads[i]);

    assert_int_equal(contest.count, 8000);
    write_ranges_finish(&contest.ranges);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_writers_do_not_wait_for_each_other),
        cmocka_unit_test(a_plain_writer_would_wait_for_an_exclusive_one_that_it_touches),
        cmocka_unit_test(an_exclusive_range_is_one_threads_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
