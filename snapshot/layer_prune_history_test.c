/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any order of saves, merges, restores, deletions and removals, and an end of the process between
 * any two files.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "snapshot/layer_prune.h"
#include "snapshot/testing/saved_disk.h"
#include "storage/disk_image.h"
#include "storage/layer_list.h"

static struct saved_disk web;

static int start(void **state)
{
    (void)state;
    srand(7);
    ASSERT_OK(saved_disk_start(&web));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    saved_disk_stop(&web);
    return web.folder[0] == '\0';
}

static void merge(unsigned newest, unsigned count)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "images/web.%06u.qcow2", newest);
    ASSERT_OK(saved_disk_merge(&web, saved_disk_at(&web, name), count, true));
}

static size_t prune(void)
{
    struct layer_prune_request wanted = {.image = web.image};
    struct layer_prune_report report;

    ASSERT_OK(layer_prune(&wanted, LAYER_PRUNE_REMOVE, &report));
    size_t count = report.count;
    layer_prune_report_finish(&report);
    ASSERT_OK(saved_disk_check(&web));
    return count;
}

/* A process that removes is killed in the middle. */
TEST(a_crash_leaves_every_image_with_what_it_stands_on)
{
    struct layer_prune_request wanted = {.image = web.image};
    struct layer_prune_report report;
    int status = 0;

    for (int i = 0; i < 9; i++)
        ASSERT_OK(saved_disk_save(&web, "a"));
    merge(8, 7);
    for (unsigned i = 2; i < 8; i++)
        ASSERT_OK(saved_disk_delete(&web, i));
    for (size_t left = 6; left > 0; left--) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)setenv("FERRY_TEST_STOP_AT", "prune remove", 1);
            _exit(layer_prune(&wanted, LAYER_PRUNE_REMOVE, &report) == NULL ? 0 : 1);
        }
        /* The first stop is before anything is removed, the second after one. */
        assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
        assert_true(WIFSTOPPED(status));
        assert_int_equal(kill(pid, SIGCONT), 0);
        assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
        if (WIFSTOPPED(status)) {
            assert_int_equal(kill(pid, SIGKILL), 0);
            assert_int_equal(waitpid(pid, &status, 0), pid);
        }
        ASSERT_OK(saved_disk_check(&web));
        ASSERT_OK(layer_prune(&wanted, LAYER_PRUNE_LOOK, &report));
        assert_int_equal(report.count, left - 1);
        layer_prune_report_finish(&report);
    }
    assert_int_equal(prune(), 0);
}

static unsigned any_snapshot(void)
{
    unsigned first = (unsigned)rand() % web.count;

    for (unsigned i = 0; i < web.count; i++)
        if (web.snapshots[(first + i) % web.count].store[0] != '\0')
            return (first + i) % web.count;
    ASSERT_OK(saved_disk_save(&web, "a"));
    return web.count - 1;
}

static unsigned depth_of_disk(void)
{
    struct disk_image_name name = {.path = web.path, .format = "qcow2"};
    struct layer_list list;

    ASSERT_OK(layer_list_read(&name, &list));
    unsigned count = list.count;
    layer_list_finish(&list);
    return count;
}

static void merge_some(void)
{
    struct disk_image_name name = {.path = web.path, .format = "qcow2"};
    struct layer_list list;

    ASSERT_OK(layer_list_read(&name, &list));
    unsigned last = 2 + (unsigned)rand() % (list.count - 3);
    unsigned count = 2 + (unsigned)rand() % (last - 1);
    /* Sometimes the machine is not told. */
    ASSERT_OK(saved_disk_merge(&web, list.layers[last].path, count, rand() % 4 != 0));
    layer_list_finish(&list);
}

TEST(whatever_is_saved_merged_restored_and_deleted_the_rest_stays_whole)
{
    size_t removed = 0;

    for (unsigned step = 0; step < 400 && web.count < SAVED_DISK_SNAPSHOTS_MAX - 8; step++) {
        switch (rand() % 10) {
        case 0: ASSERT_OK(saved_disk_delete(&web, any_snapshot())); break;
        case 1:
        case 2:
            if (web.count > 0)
                ASSERT_OK(saved_disk_delete(&web, any_snapshot()));
            removed += prune();
            break;
        case 3: ASSERT_OK(saved_disk_restore(&web, any_snapshot())); break;
        case 4:
        case 5:
            if (depth_of_disk() > 5)
                merge_some();
            break;
        default: ASSERT_OK(saved_disk_save(&web, rand() % 3 == 0 ? "b" : "a"));
        }
        while (depth_of_disk() > 40)
            merge_some();
    }
    ASSERT_OK(saved_disk_check(&web));
    assert_true(removed > 20);
}

#define WITH_DISK(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DISK(a_crash_leaves_every_image_with_what_it_stands_on),
        WITH_DISK(whatever_is_saved_merged_restored_and_deleted_the_rest_stays_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
