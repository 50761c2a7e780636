/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/thread.h"
#include "base/unit_test.h"

/* Does the function end its process by a failed assertion? It runs in a child. */
static bool dies(void (*function)(void))
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit no_core = {0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(STDERR_FILENO); /* the message is expected */
        function();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void take_outer_after_inner(void) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    struct lock outer;
    struct lock inner;

    lock_init(&outer, LOCK_DEVICES);
    lock_init(&inner, LOCK_LOG);
    lock_acquire(&inner);
    lock_acquire(&outer);
}

static void take_inner_after_outer(void) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    struct lock outer;
    struct lock inner;

    lock_init(&outer, LOCK_DEVICES);
    lock_init(&inner, LOCK_LOG);
    lock_acquire(&outer);
    lock_acquire(&inner);
    lock_release(&outer);
    lock_release(&inner);
}

static void take_twice(void) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    struct lock lock;

    lock_init(&lock, LOCK_TEST);
    lock_acquire(&lock);
    lock_acquire(&lock);
}

static void release_what_is_not_held(void) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    struct lock lock;

    lock_init(&lock, LOCK_TEST);
    lock_release(&lock);
}

TEST(taking_an_outer_lock_after_an_inner_one_dies)
{
    assert_true(dies(take_outer_after_inner));
}

TEST(locks_taken_inwards_may_be_released_in_any_order)
{
    assert_false(dies(take_inner_after_outer));
}

TEST(taking_a_lock_twice_dies)
{
    assert_true(dies(take_twice));
}

TEST(releasing_a_lock_that_is_not_held_dies)
{
    assert_true(dies(release_what_is_not_held));
}

static void take_inner_after_a_second_one(void) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    struct lock first;
    struct lock second;
    struct lock outer;

    lock_init(&first, LOCK_TEST);
    lock_init(&second, LOCK_TEST);
    lock_init(&outer, LOCK_DEVICES);
    lock_acquire(&first);
    if (!lock_try_acquire(&second))
        return;
    lock_release(&second);
    lock_acquire(&outer); /* the first is still held */
}

TEST(a_second_lock_of_a_rank_is_tried_and_the_first_stays_known_as_held)
{
    assert_true(dies(take_inner_after_a_second_one));
}

struct tried {
    struct lock lock;
    bool was_free;
};

static void try_it(void *argument) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    struct tried *tried = argument;

    tried->was_free = lock_try_acquire(&tried->lock);
    if (tried->was_free)
        lock_release(&tried->lock);
}

TEST(trying_takes_a_lock_that_is_free_whatever_is_held_and_no_other)
{
    struct tried tried = {.was_free = true};
    struct lock inner;
    struct thread *thread;
    lock_init(&tried.lock, LOCK_TEST);
    lock_init(&inner, LOCK_LOG);

    lock_acquire(&tried.lock);
    ASSERT_OK(thread_create(ROLE_TEST, 0, try_it, &tried, &thread));
    thread_join(thread);
    assert_false(tried.was_free);
    lock_release(&tried.lock);

    lock_acquire(&inner);
    try_it(&tried);
    assert_true(tried.was_free);
    lock_release(&inner);
    lock_acquire(&tried.lock); /* nothing is left of the rank */
    lock_release(&tried.lock);
    lock_finish(&inner);
    lock_finish(&tried.lock);
}

struct counter {
    struct lock_condition changed;
    struct lock lock;
    int value GUARDED_BY(&lock);
};

static void add_many(void *argument)
{
    struct counter *counter = argument;

    for (int i = 0; i < 10000; i++) {
        lock_acquire(&counter->lock);
        counter->value++;
        lock_condition_broadcast(&counter->changed);
        lock_release(&counter->lock);
    }
}

TEST(two_threads_count_exactly_and_wake_who_waits)
{
    struct counter counter = {0};
    struct thread *threads[2];
    lock_init(&counter.lock, LOCK_TEST);
    lock_condition_init(&counter.changed);
    ASSERT_OK(thread_create(ROLE_TEST, 0, add_many, &counter, &threads[0]));
    ASSERT_OK(thread_create(ROLE_TEST, 1, add_many, &counter, &threads[1]));

    lock_acquire(&counter.lock);
    while (counter.value < 20000)
        lock_condition_wait(&counter.changed, &counter.lock);
    lock_release(&counter.lock);

    thread_join(threads[0]);
    thread_join(threads[1]);
    lock_acquire(&counter.lock);
    assert_int_equal(counter.value, 20000);
    lock_release(&counter.lock);
    lock_condition_finish(&counter.changed);
    lock_finish(&counter.lock);
}

TEST(a_wait_with_a_deadline_ends_at_it)
{
    struct lock lock;
    struct lock_condition never;
    uint64_t deadline_ns = clock_monotonic_ns() + 5 * NS_PER_MS;
    lock_init(&lock, LOCK_TEST);
    lock_condition_init(&never);

    lock_acquire(&lock);
    while (lock_condition_wait_until(&never, &lock, deadline_ns))
        ;
    lock_release(&lock);

    assert_true(clock_monotonic_ns() >= deadline_ns);
    lock_condition_finish(&never);
    lock_finish(&lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taking_an_outer_lock_after_an_inner_one_dies),
        cmocka_unit_test(locks_taken_inwards_may_be_released_in_any_order),
        cmocka_unit_test(taking_a_lock_twice_dies),
        cmocka_unit_test(releasing_a_lock_that_is_not_held_dies),
        cmocka_unit_test(a_second_lock_of_a_rank_is_tried_and_the_first_stays_known_as_held),
        cmocka_unit_test(trying_takes_a_lock_that_is_free_whatever_is_held_and_no_other),
        cmocka_unit_test(two_threads_count_exactly_and_wake_who_waits),
        cmocka_unit_test(a_wait_with_a_deadline_ends_at_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
