/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_process_test.c - processes that can not become machines are explained and reaped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "control/control_client.h"
#include "control/machine_process.h"

static char folder[] = "/tmp/machine-process-XXXXXX";

static int set_up(void **unused)
{
    (void)unused;
    return mkdtemp(folder) == NULL ? -1 : setenv("FERRY_RUNTIME_DIR", folder, 1);
}

static int tear_down(void **unused)
{
    char command[128];
    (void)unused;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static struct err *start(void)
{
    struct control_client *client;
    pid_t pid;
    char *log_path;
    return machine_process_start("m", "test", &client, &pid, &log_path);
}

TEST(a_program_that_is_missing_is_named)
{
    assert_int_equal(setenv("FERRY_VM_RUN", "/nowhere/vm-run", 1), 0);

    struct err *err = start();
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "/nowhere/vm-run"));
    assert_fails(err, ERR_IO);
}

TEST(a_process_that_ends_at_once_is_explained_by_its_log)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/fails", folder);
    FILE *script = fopen(path, "w");
    assert_non_null(script);
    (void)fputs("#!/bin/sh\necho this host has no KVM >&2\nexit 1\n", script);
    (void)fclose(script);
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(setenv("FERRY_VM_RUN", path, 1), 0);

    struct err *err = start();
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "this host has no KVM"));
    assert_fails(err, ERR_IO);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_that_is_missing_is_named),
        cmocka_unit_test(a_process_that_ends_at_once_is_explained_by_its_log),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
