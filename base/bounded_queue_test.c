/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bounded_queue.h"
#include "base/thread.h"
#include "base/unit_test.h"

#define MANY 20000

static int items[MANY];

TEST(items_come_out_in_the_order_they_went_in)
{
    struct bounded_queue *queue = NULL;
    ASSERT_OK(bounded_queue_create(2, &queue));

    for (int round = 0; round < 5; round++) {
        assert_true(bounded_queue_push(queue, &items[0]));
        assert_true(bounded_queue_push(queue, &items[1]));
        assert_ptr_equal(bounded_queue_pop(queue), &items[0]);
        assert_ptr_equal(bounded_queue_pop(queue), &items[1]);
    }

    bounded_queue_destroy(queue);
}

TEST(trying_never_waits)
{
    struct bounded_queue *queue = NULL;
    ASSERT_OK(bounded_queue_create(1, &queue));

    assert_null(bounded_queue_try_pop(queue));
    assert_true(bounded_queue_try_push(queue, &items[0]));
    assert_false(bounded_queue_try_push(queue, &items[1]));

    assert_int_equal(bounded_queue_count(queue), 1);
    assert_ptr_equal(bounded_queue_try_pop(queue), &items[0]);
    bounded_queue_destroy(queue);
}

TEST(a_closed_queue_refuses_pushes_and_drains)
{
    struct bounded_queue *queue = NULL;
    ASSERT_OK(bounded_queue_create(2, &queue));
    assert_true(bounded_queue_push(queue, &items[0]));

    bounded_queue_close(queue);

    assert_false(bounded_queue_push(queue, &items[1]));
    assert_false(bounded_queue_try_push(queue, &items[1]));
    assert_ptr_equal(bounded_queue_pop(queue), &items[0]);
    assert_null(bounded_queue_pop(queue));
    bounded_queue_destroy(queue);
}

static void push_all(void *argument)
{
    struct bounded_queue *queue = argument;

    for (int i = 0; i < MANY; i++)
        (void)bounded_queue_push(queue, &items[i]);
    bounded_queue_close(queue);
}

TEST(a_small_queue_carries_many_items_between_threads)
{
    struct bounded_queue *queue = NULL;
    struct thread *producer = NULL;
    int count = 0;
    ASSERT_OK(bounded_queue_create(3, &queue));
    ASSERT_OK(thread_create(ROLE_TEST, 0, push_all, queue, &producer));

    for (void *item = bounded_queue_pop(queue); item != NULL; item = bounded_queue_pop(queue))
        assert_ptr_equal(item, &items[count++]);
    thread_join(producer);

    assert_int_equal(count, MANY);
    bounded_queue_destroy(queue);
}

static void pop_until_closed(void *argument)
{
    while (bounded_queue_pop(argument) != NULL)
        ;
}

TEST(closing_wakes_who_waits_for_items)
{
    struct bounded_queue *queue = NULL;
    struct thread *consumer = NULL;
    ASSERT_OK(bounded_queue_create(1, &queue));
    ASSERT_OK(thread_create(ROLE_TEST, 0, pop_until_closed, queue, &consumer));

    bounded_queue_close(queue);

    thread_join(consumer);
    bounded_queue_destroy(queue);
}

TEST(destroying_nothing_is_allowed)
{
    bounded_queue_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_out_in_the_order_they_went_in),
        cmocka_unit_test(trying_never_waits),
        cmocka_unit_test(a_closed_queue_refuses_pushes_and_drains),
        cmocka_unit_test(a_small_queue_carries_many_items_between_threads),
        cmocka_unit_test(closing_wakes_who_waits_for_items),
        cmocka_unit_test(destroying_nothing_is_allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
