/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runtime_folder_test.c - which folders are used, and which names are allowed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "control/runtime_folder.h"

static char folder[] = "/tmp/runtime-folder-XXXXXX";

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

static void touch(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
}

TEST(a_machine_is_found_by_its_name_alone)
{
    char *path;
    ASSERT_OK(machine_socket_path("web-1", &path));

    char expected[256];
    (void)snprintf(expected, sizeof(expected), "%s/web-1.sock", folder);
    assert_string_equal(path, expected);
    free(path);
}

TEST(names_that_would_leave_the_folder_are_refused)
{
    static const char *const names[] = {"", ".", "..", "../x", "a/b", "-x", "a b", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_fails(machine_name_check(names[i]), ERR_INVALID);

    char longest[65];
    memset(longest, 'a', 64);
    longest[64] = '\0';
    assert_fails(machine_name_check(longest), ERR_INVALID);
    longest[63] = '\0';
    ASSERT_OK(machine_name_check(longest));
}

TEST(sockets_are_listed_in_order_and_nothing_else_is)
{
    touch("b.sock");
    touch("a.sock");
    touch("a.log");
    touch(".sock");

    char **names;
    size_t count;
    ASSERT_OK(machine_names(&names, &count));
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

TEST(folders_are_created_for_their_owner_only)
{
    char state[300];
    (void)snprintf(state, sizeof(state), "%s/deep/state", folder);
    assert_int_equal(setenv("FERRY_STATE_DIR", state, 1), 0);

    char *path;
    ASSERT_OK(state_folder("snapshots", &path));
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_is_found_by_its_name_alone),
        cmocka_unit_test(names_that_would_leave_the_folder_are_refused),
        cmocka_unit_test(sockets_are_listed_in_order_and_nothing_else_is),
        cmocka_unit_test(folders_are_created_for_their_owner_only),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
