/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_ctl_test.c - the program itself, against a pretended machine.
 */
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "control/machine_fake.h"
#include "tools/program.h"
#include "tools/vm-ctl/vm_ctl.h"

static char folder[] = "/tmp/vm-ctl-XXXXXX";
static char output[16384];
static const struct machine_fake_config config = {.name = "web", .memory_mib = 4};
static struct machine_fake *machine;

/* Runs "vm-ctl WORDS"; stdout and stderr go to `output`. */
static int run(const char *words)
{
    char command[512];
    (void)snprintf(command, sizeof(command), "%s %s 2>&1", VM_CTL, words);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t len = fread(output, 1, sizeof(output) - 1, pipe);
    output[len] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static json_t *run_json(const char *words)
{
    assert_int_equal(run(words), PROGRAM_DONE);
    json_t *document = json_loads(output, 0, NULL);
    assert_non_null(document);
    return document;
}

TEST(machines_are_listed)
{
    assert_int_equal(run("list"), PROGRAM_DONE);
    assert_non_null(strstr(output, "\nweb "));
    assert_non_null(strstr(output, "running"));

    json_t *document = run_json("--json list");
    json_t *machines = json_object_get(document, "machines");
    assert_int_equal(json_array_size(machines), 1);
    const char *name, *state;
    json_int_t memory_mib;
    assert_int_equal(json_unpack(json_array_get(machines, 0), "{s:s, s:s, s:{s:I}}", "name", &name,
                                 "state", &state, "config", "memory_mib", &memory_mib),
                     0);
    assert_string_equal(name, "web");
    assert_string_equal(state, "running");
    assert_int_equal(memory_mib, 4);
    json_decref(document);
}

TEST(a_pause_outlives_the_program_that_asked_for_it)
{
    assert_int_equal(run("pause web"), PROGRAM_DONE);
    assert_int_equal(run("status web"), PROGRAM_DONE);
    assert_non_null(strstr(output, "state:       paused"));
    assert_int_equal(run("pause web"), PROGRAM_NOT_POSSIBLE);

    assert_int_equal(run("resume web"), PROGRAM_DONE);
    json_t *document = run_json("status web --json");
    assert_string_equal(json_string_value(json_object_get(document, "state")), "running");
    json_decref(document);
}

TEST(mistakes_have_their_exit_codes)
{
    assert_int_equal(run("status nobody"), PROGRAM_NOT_FOUND);
    assert_non_null(strstr(output, "vm-ctl: no machine 'nobody' is running"));
    assert_int_equal(run("status"), PROGRAM_USAGE);
    assert_int_equal(run("dance web"), PROGRAM_USAGE);
    assert_int_equal(run("status ../web"), PROGRAM_FAILED);
}

TEST(a_console_shows_what_the_machine_says_until_it_ends)
{
    char command[256];
    (void)snprintf(command, sizeof(command), "%s console web </dev/null", VM_CTL);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    char first[64] = "";
    while (first[0] == '\0') { /* until the console is connected */
        machine_fake_say(machine, "login:\n");
        struct pollfd poll_fd = {.fd = fileno(pipe), .events = POLLIN};
        if (poll(&poll_fd, 1, 10) > 0)
            assert_non_null(fgets(first, sizeof(first), pipe));
    }
    assert_string_equal(first, "login:\n");

    assert_int_equal(run("quit web"), PROGRAM_DONE);
    assert_int_equal(pclose(pipe), 0);
    machine_fake_destroy(machine);
    ASSERT_OK(machine_fake_start(&config, &machine));
}

TEST(a_machine_that_quits_is_waited_for_and_gone)
{
    assert_int_equal(run("power-off web"), PROGRAM_DONE);
    assert_int_equal(run("power-off --force --wait 10 web"), PROGRAM_DONE);
    assert_true(machine_fake_has_quit(machine));
    assert_int_equal(run("status web"), PROGRAM_NOT_FOUND);
    json_t *document = run_json("list --json");
    assert_int_equal(json_array_size(json_object_get(document, "machines")), 0);
    json_decref(document);
}

static int set_up(void **unused)
{
    (void)unused;
    if (mkdtemp(folder) == NULL || setenv("FERRY_RUNTIME_DIR", folder, 1) != 0)
        return -1;
    return machine_fake_start(&config, &machine) == NULL ? 0 : -1;
}

static int tear_down(void **unused)
{
    (void)unused;
    machine_fake_destroy(machine);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machines_are_listed),
        cmocka_unit_test(a_pause_outlives_the_program_that_asked_for_it),
        cmocka_unit_test(mistakes_have_their_exit_codes),
        cmocka_unit_test(a_console_shows_what_the_machine_says_until_it_ends),
        cmocka_unit_test(a_machine_that_quits_is_waited_for_and_gone),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
