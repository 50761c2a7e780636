/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/unit_test.h"

TEST(steps_go_on_until_a_signal_comes)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    for (int i = 0; i < 3; i++) {
        cancel_listen();
        ASSERT_OK(cancel_check());
        assert_int_equal(raise(signals[i]), 0);
        assert_fails(cancel_check(), ERR_CANCELLED);
        assert_fails(cancel_check(), ERR_CANCELLED);
        cancel_ignore();
        ASSERT_OK(cancel_check());
    }
}

/* In a process of its own: which signal ends it; 0: none does. */
static int end_of(int count, bool is_ignored)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        cancel_listen();
        if (is_ignored)
            cancel_ignore();
        for (int i = 0; i < count; i++)
            (void)raise(SIGINT);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST(the_second_signal_ends_the_process_as_does_one_that_nobody_listens_to)
{
    assert_int_equal(end_of(1, false), 0);
    assert_int_equal(end_of(2, false), SIGINT);
    assert_int_equal(end_of(1, true), SIGINT);
}

TEST(a_signal_that_was_ignored_before_stays_so)
{
    assert_true(signal(SIGHUP, SIG_IGN) != SIG_ERR);
    cancel_listen();
    assert_int_equal(raise(SIGHUP), 0);
    ASSERT_OK(cancel_check());
    cancel_ignore();
    assert_int_equal(raise(SIGHUP), 0);
    assert_true(signal(SIGHUP, SIG_DFL) == SIG_IGN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_go_on_until_a_signal_comes),
        cmocka_unit_test(the_second_signal_ends_the_process_as_does_one_that_nobody_listens_to),
        cmocka_unit_test(a_signal_that_was_ignored_before_stays_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
