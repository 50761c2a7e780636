/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bounded_queue.h"
#include "base/thread.h"
#include "base/unit_test.h"

struct seen {
    bool is_disk;
    bool is_loop;
    bool all_blocked;
    char name[16];
};

static void look_around(void *argument)
{
    struct seen *seen = argument;
    sigset_t mask;

    seen->is_disk = thread_is(ROLE_DISK);
    seen->is_loop = thread_is(ROLE_LOOP);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask);
    seen->all_blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1;
    (void)pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
}

TEST(a_thread_has_its_role_its_name_and_no_signals)
{
    struct seen seen = {0};
    struct thread *thread = NULL;

    ASSERT_OK(thread_create(ROLE_DISK, 3, look_around, &seen, &thread));
    thread_join(thread);

    assert_true(seen.is_disk);
    assert_false(seen.is_loop);
    assert_true(seen.all_blocked);
    assert_string_equal(seen.name, "disk 3");
}

TEST(starting_a_thread_leaves_the_callers_signals_as_they_were)
{
    struct seen seen = {0};
    struct thread *thread = NULL;
    sigset_t mask;

    ASSERT_OK(thread_create(ROLE_TEST, 0, look_around, &seen, &thread));
    thread_join(thread);

    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    assert_int_equal(sigismember(&mask, SIGTERM), 0);
}

TEST(main_is_the_loop_until_it_says_otherwise)
{
    assert_true(thread_is(ROLE_LOOP));

    thread_become(ROLE_TEST);

    assert_true(thread_is(ROLE_TEST));
    thread_become(ROLE_LOOP);
}

static _Atomic int kicks; /* counted in a signal handler; the join orders the final read */

static void count_kick(int signal)
{
    (void)signal;
    atomic_fetch_add(&kicks, 1);
}

static void wait_for_kick(void *argument)
{
    sigset_t all_but_kick;

    (void)sigfillset(&all_but_kick);
    (void)sigdelset(&all_but_kick, SIGUSR1);
    (void)bounded_queue_push(argument, argument);
    (void)sigsuspend(&all_but_kick); /* returns after the handler ran */
}

TEST(a_kick_reaches_the_thread)
{
    struct bounded_queue *started = NULL;
    struct thread *thread = NULL;
    struct sigaction action = {.sa_handler = count_kick};
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    ASSERT_OK(bounded_queue_create(1, &started));
    ASSERT_OK(thread_create(ROLE_VCPU, 0, wait_for_kick, started, &thread));
    (void)bounded_queue_pop(started);

    thread_kick(thread, SIGUSR1);
    thread_join(thread);

    assert_int_equal(atomic_load(&kicks), 1);
    bounded_queue_destroy(started);
}

TEST(joining_nothing_is_allowed)
{
    thread_join(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_has_its_role_its_name_and_no_signals),
        cmocka_unit_test(starting_a_thread_leaves_the_callers_signals_as_they_were),
        cmocka_unit_test(main_is_the_loop_until_it_says_otherwise),
        cmocka_unit_test(a_kick_reaches_the_thread),
        cmocka_unit_test(joining_nothing_is_allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
