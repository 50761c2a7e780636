/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/test_hook.h"
#include "base/thread.h"
#include "base/unit_test.h"

/* A child that passes two hooks and ends; returns its pid once it has stopped or ended. */
static pid_t start_child(const char *stop_at, int *out_status)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (stop_at != NULL)
            (void)setenv("FERRY_TEST_STOP_AT", stop_at, 1);
        test_hook("first");
        test_hook("second");
        _exit(0);
    }
    assert_int_equal(waitpid(pid, out_status, WUNTRACED), pid);
    return pid;
}

TEST(without_the_variable_nothing_stops)
{
    int status = 0;

    (void)start_child(NULL, &status);

    assert_true(WIFEXITED(status));
}

TEST(the_named_step_stops_and_sigcont_goes_on)
{
    int status = 0;

    pid_t pid = start_child("second", &status);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);

    assert_true(WIFEXITED(status));
}

TEST(another_name_is_ignored)
{
    int status = 0;

    (void)start_child("third", &status);

    assert_true(WIFEXITED(status));
}

static void pass_hook(void *argument)
{
    test_hook("held");
    *(bool *)argument = true;
}

TEST(a_thread_is_held_until_the_test_lets_it_go)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP(cleanup_fd) int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct thread *thread = NULL;
    bool has_passed = false;

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/test_hook.%d", (int)getpid());
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    (void)setenv("FERRY_TEST_HOLD_SOCKET", address.sun_path, 1);
    (void)setenv("FERRY_TEST_HOLD_AT", "held", 1);

    test_hook("another");
    ASSERT_OK(thread_create(ROLE_TEST, 0, pass_hook, &has_passed, &thread));
    int held = accept(listener, NULL, NULL);
    assert_true(held >= 0);
    close(held);
    thread_join(thread);
    assert_true(has_passed);

    (void)unlink(address.sun_path);
    (void)unsetenv("FERRY_TEST_HOLD_AT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_variable_nothing_stops),
        cmocka_unit_test(the_named_step_stops_and_sigcont_goes_on),
        cmocka_unit_test(another_name_is_ignored),
        cmocka_unit_test(a_thread_is_held_until_the_test_lets_it_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
