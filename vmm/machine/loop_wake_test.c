/* SPDX-License-Identifier: Apache-2.0 */
#include "base/event_loop.h"
#include "base/unit_test.h"
#include "vmm/machine/loop_wake.h"

static void count_up(void *context)
{
    (*(int *)context)++;
}

TEST(many_wakes_before_a_turn_are_one_call)
{
    struct event_loop *loop = NULL;
    struct loop_wake *wake = NULL;
    int calls = 0;

    ASSERT_OK(event_loop_create(&loop));
    ASSERT_OK(loop_wake_create(loop, count_up, &calls, &wake));
    loop_wake(wake);
    loop_wake(wake);
    ASSERT_OK(event_loop_turn(loop, 0));
    ASSERT_OK(event_loop_turn(loop, 0));
    assert_int_equal(calls, 1);
    loop_wake(wake);
    ASSERT_OK(event_loop_turn(loop, 0));
    assert_int_equal(calls, 2);
    loop_wake_destroy(wake);
    event_loop_destroy(loop);
}

TEST(a_destroyed_wake_never_calls)
{
    struct event_loop *loop = NULL;
    struct loop_wake *wake = NULL;
    int calls = 0;

    ASSERT_OK(event_loop_create(&loop));
    ASSERT_OK(loop_wake_create(loop, count_up, &calls, &wake));
    loop_wake(wake);
    loop_wake_destroy(wake);
    ASSERT_OK(event_loop_turn(loop, 0));
    assert_int_equal(calls, 0);
    event_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_wakes_before_a_turn_are_one_call),
        cmocka_unit_test(a_destroyed_wake_never_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
