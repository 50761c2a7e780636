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

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "control/machine_fake.h"
#include "tools/program.h"
#include "tools/vm-ctl/vm_ctl.h"

static char folder[] = "/tmp/vm-ctl-XXXXXX";
static char output[16384];
static char disk_path[64];
static const struct machine_fake_config config = {
    .name = "web", .memory_mib = 4, .disk_path = disk_path};
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

static json_int_t disk_number(const char *key)
{
    json_int_t number = -1;
    json_t *document = run_json("status web --json");
    json_t *disks = json_object_get(json_object_get(document, "config"), "disks");
    assert_int_equal(json_unpack(json_array_get(disks, 0), "{s:I}", key, &number), 0);
    json_decref(document);
    return number;
}

TEST(limits_of_a_disk_are_set_and_lifted_one_by_one)
{
    assert_int_equal(disk_number("queues"), 1);
    assert_int_equal(disk_number("requests_per_second"), 0);

    assert_int_equal(run("limit-disk web disk0 iops=500,bps=1048576"), PROGRAM_DONE);
    assert_int_equal(disk_number("requests_per_second"), 500);
    assert_int_equal(disk_number("bytes_per_second"), 1048576);
    assert_int_equal(run("status web"), PROGRAM_DONE);
    assert_non_null(strstr(output, "(raw, 1 queue, 500 requests/s at most, 1.0 MiB/s at most)"));

    assert_int_equal(run("limit-disk web disk0 iops=0"), PROGRAM_DONE);
    assert_int_equal(disk_number("requests_per_second"), 0);
    assert_int_equal(disk_number("bytes_per_second"), 1048576);
}

TEST(limits_that_are_none_are_refused)
{
    static const char *const words[] = {"",        "iops",    "iops=many",
                                        "iops=-1", "speed=7", "bps=1099511627777"};

    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        char command[128];
        (void)snprintf(command, sizeof(command), "limit-disk web disk0 '%s'", words[i]);
        assert_int_equal(run(command), PROGRAM_USAGE);
        assert_non_null(strstr(output, "vm-ctl: limit-disk: "));
    }
    assert_int_equal(run("limit-disk web disk0"), PROGRAM_USAGE);
    assert_int_equal(run("limit-disk web vdz iops=1"), PROGRAM_NOT_FOUND);
    assert_non_null(strstr(output, "no disk 'vdz'"));
    assert_int_equal(run("limit-disk nobody disk0 iops=1"), PROGRAM_NOT_FOUND);
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
    (void)snprintf(disk_path, sizeof(disk_path), "%s/disk.raw", folder);
    FILE *disk = fopen(disk_path, "w");
    if (disk == NULL || fclose(disk) != 0)
        return -1;
    return machine_fake_start(&config, &machine) == NULL ? 0 : -1;
}

static int tear_down(void **unused)
{
    (void)unused;
    machine_fake_destroy(machine);
    (void)unlink(disk_path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machines_are_listed),
        cmocka_unit_test(a_pause_outlives_the_program_that_asked_for_it),
        cmocka_unit_test(mistakes_have_their_exit_codes),
        cmocka_unit_test(limits_of_a_disk_are_set_and_lifted_one_by_one),
        cmocka_unit_test(limits_that_are_none_are_refused),
        cmocka_unit_test(a_console_shows_what_the_machine_says_until_it_ends),
        cmocka_unit_test(a_machine_that_quits_is_waited_for_and_gone),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
