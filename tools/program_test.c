/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "tools/program.h"

struct settings {
    bool json;
};

static const struct option_row rows[] = {
    OPTION_FLAG("json", 'j', struct settings, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-test",
    .arguments = "NAME",
    .summary = "Tries programs.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

static char output[4096];

/* Runs a program with one argument that ends with `err`; returns its exit code, and in `output`
 * what it printed on stdout and stderr. */
static int run(char *argument, struct err *err)
{
    int ends[2];
    int status = 0;

    assert_int_equal(pipe(ends), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct settings settings;
        struct option_result result;
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)dup2(ends[1], STDERR_FILENO);
        program_begin(&table, 2, (char *[]){(char[]){"vm-test"}, argument}, &settings, &result);
        exit(program_end(err));
    }
    err_free(err);
    (void)close(ends[1]);
    size_t used = 0;
    ssize_t got = 0;
    while ((got = read(ends[0], output + used, sizeof(output) - 1 - used)) > 0)
        used += (size_t)got;
    output[used] = '\0';
    (void)close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

TEST(success_prints_nothing_and_is_zero)
{
    assert_int_equal(run((char[]){"web"}, NULL), PROGRAM_DONE);
    assert_string_equal(output, "");
}

TEST(an_error_is_printed_once_and_chooses_the_exit_code)
{
    struct err *err = err_new(ERR_NOT_FOUND, "no machine 'web'; see vm-ctl list");

    assert_int_equal(run((char[]){"web"}, err), PROGRAM_NOT_FOUND);
    assert_string_equal(output, "vm-test: no machine 'web'; see vm-ctl list\n");
}

TEST(a_permission_has_its_exit_code_whatever_it_was_needed_for)
{
    struct err *err = err_wrap(err_errno(EACCES, "open 'x'"), "save");

    assert_int_equal(run((char[]){"web"}, err), PROGRAM_DENIED);
    assert_int_equal(run((char[]){"web"}, err_errno(EPERM, "open 'x'")), PROGRAM_DENIED);
    assert_int_equal(run((char[]){"web"}, err_errno(ENOSPC, "write 'x'")), PROGRAM_FAILED);
}

TEST(help_goes_to_stdout_and_is_success)
{
    assert_int_equal(run((char[]){"--help"}, NULL), PROGRAM_DONE);
    assert_non_null(strstr(output, "usage: vm-test [options] NAME"));
}

TEST(a_wrong_command_line_ends_before_anything_is_done)
{
    assert_int_equal(run((char[]){"--nonsense"}, NULL), PROGRAM_USAGE);
    assert_non_null(strstr(output, "vm-test: unknown option '--nonsense'"));
}

TEST(every_kind_of_error_has_an_exit_code_that_is_not_success)
{
    for (enum err_kind kind = ERR_INVALID; kind <= ERR_DENIED; kind++)
        assert_int_not_equal(program_exit_of(kind), PROGRAM_DONE);
    assert_int_equal(program_exit_of(ERR_CANCELLED), 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(success_prints_nothing_and_is_zero),
        cmocka_unit_test(an_error_is_printed_once_and_chooses_the_exit_code),
        cmocka_unit_test(a_permission_has_its_exit_code_whatever_it_was_needed_for),
        cmocka_unit_test(help_goes_to_stdout_and_is_success),
        cmocka_unit_test(a_wrong_command_line_ends_before_anything_is_done),
        cmocka_unit_test(every_kind_of_error_has_an_exit_code_that_is_not_success),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
