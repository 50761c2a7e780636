/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "control/control_client.h"
#include "control/machine_fake.h"
#include "snapshot/catalog.h"
#include "snapshot/store_directory.h"
#include "snapshot/store_memory.h"
#include "snapshot/take.h"
#include "snapshot/testing/taken_guest.h"

static struct machine_fake *machine;
static struct control_client *client;
static struct snapshot_store *store;
static char folder[64];

static int start(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/ferry-take-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(setenv("FERRY_RUNTIME_DIR", folder, 1), 0);
    ASSERT_OK(taken_guest_start(NULL, &machine, &client));
    ASSERT_OK(store_memory_create(&store));
    return 0;
}

static int stop(void **state)
{
    char command[128];

    (void)state;
    control_client_close(client);
    machine_fake_destroy(machine);
    snapshot_store_destroy(store);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static struct take_result take(void)
{
    struct take_result result;

    ASSERT_OK(snapshot_take(client, store, TAKE_SETTINGS_DEFAULT, &result));
    return result;
}

/* Waits until the guest has done so many steps more. */
static void let_guest_work(uint64_t steps)
{
    uint64_t wanted = machine_fake_steps(machine) + steps;

    while (machine_fake_steps(machine) < wanted)
        continue;
}

static void expect_unharmed(void)
{
    assert_int_equal(machine_fake_run_state(machine), FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING);
    assert_int_equal(machine_fake_borrowers(machine), 0);
    ASSERT_OK(machine_fake_check(machine));
}

TEST(a_snapshot_of_a_working_guest_is_exactly_its_memory_at_the_cut)
{
    uint64_t steps = 0;

    let_guest_work(500);
    struct take_result result = take();

    ASSERT_OK(taken_guest_check(store, result.manifest->id, &steps));
    assert_true(steps >= 500);
    assert_string_equal(result.manifest->parent, "");
    assert_int_equal(result.manifest->counters->pages, 16 * MIB / PAGE_BYTES);
    assert_in_range(result.manifest->counters->pages_written, 2500, 2600);
    assert_int_equal(result.manifest->n_regions, 2);
    assert_true(result.is_tracked);
    take_result_finish(&result);
    expect_unharmed();
}

TEST(a_snapshot_is_the_newest_also_when_the_clock_was_put_back)
{
    static const char tomorrow[] = "24991231T235959.999999Z-ffffffff";
    struct snapshot_draft *draft = NULL;
    struct snapshot_id newest;

    ASSERT_OK(store_begin(store, TAKEN_GUEST_NAME, tomorrow, &draft));
    ASSERT_OK(draft_publish(draft, "m", 1, NULL));
    draft_close(draft);
    for (int i = 0; i < 3; i++) {
        struct take_result result = take();
        ASSERT_OK(catalog_newest(store, TAKEN_GUEST_NAME, &newest));
        assert_string_equal(newest.text, result.manifest->id);
        assert_int_equal(result.manifest->n_page_files, i + 1);
        take_result_finish(&result);
    }
}

TEST(five_children_hold_only_changes_and_each_is_exact)
{
    char ids[6][64];
    uint64_t last_steps = 0;
    let_guest_work(1);

    for (int i = 0; i < 6; i++) {
        uint64_t own_pages = 0;
        struct take_result result = take();
        (void)snprintf(ids[i], sizeof(ids[i]), "%s", result.manifest->id);
        assert_string_equal(result.manifest->parent, i == 0 ? "" : ids[i - 1]);
        assert_int_equal(result.manifest->n_page_files, i + 1);
        ASSERT_OK(taken_guest_own_pages(store, ids[i], &own_pages));
        if (i > 0)
            assert_in_range(own_pages, 100, 1500);
        take_result_finish(&result);
        let_guest_work(100);
    }

    for (int i = 0; i < 6; i++) {
        uint64_t steps = 0;
        ASSERT_OK(taken_guest_check(store, ids[i], &steps));
        assert_true(steps > last_steps);
        last_steps = steps;
    }
    expect_unharmed();
}

TEST(a_full_snapshot_on_demand_has_no_parent)
{
    struct take_settings settings = TAKE_SETTINGS_DEFAULT;
    struct take_result first = take();
    struct take_result second;

    settings.is_full = true;
    ASSERT_OK(snapshot_take(client, store, settings, &second));

    assert_string_equal(second.manifest->parent, "");
    ASSERT_OK(catalog_delete(store, TAKEN_GUEST_NAME, first.manifest->id));
    uint64_t steps = 0;
    ASSERT_OK(taken_guest_check(store, second.manifest->id, &steps));
    take_result_finish(&first);
    take_result_finish(&second);
}

TEST(a_machine_that_does_not_know_the_newest_snapshot_is_saved_in_full)
{
    struct take_result first = take();

    control_client_close(client);
    machine_fake_destroy(machine);
    ASSERT_OK(taken_guest_start(NULL, &machine, &client));
    struct take_result second = take();

    assert_string_equal(second.manifest->parent, "");
    take_result_finish(&first);
    take_result_finish(&second);
}

TEST(a_full_disk_is_told_and_leaves_everything_as_it_was)
{
    struct take_result first = take();

    for (unsigned part = 0; part < SNAPSHOT_PART_COUNT; part++) {
        struct snapshot_store *full = NULL;
        struct take_result result;
        ASSERT_OK(store_memory_create(&full));
        store_memory_fill_up(full, part);
        struct err *err = snapshot_take(client, full, TAKE_SETTINGS_DEFAULT, &result);
        assert_non_null(err);
        assert_non_null(strstr(err_message(err), "No space left on device"));
        assert_fails(err, ERR_IO);
        assert_int_equal(store_memory_draft_count(full), 0);
        expect_unharmed();
        snapshot_store_destroy(full);
    }

    let_guest_work(10);
    struct take_result second = take(); /* still a child of the first */
    uint64_t steps = 0;
    assert_string_equal(second.manifest->parent, first.manifest->id);
    ASSERT_OK(taken_guest_check(store, second.manifest->id, &steps));
    take_result_finish(&first);
    take_result_finish(&second);
}

TEST(a_failure_at_the_commit_point_leaves_no_snapshot)
{
    struct take_result result;
    struct name_list ids = {0};

    store_memory_refuse_publish(store);
    assert_fails(snapshot_take(client, store, TAKE_SETTINGS_DEFAULT, &result), ERR_IO);

    ASSERT_OK(store_snapshots(store, TAKEN_GUEST_NAME, &ids));
    assert_int_equal(ids.count, 0);
    assert_int_equal(store_memory_draft_count(store), 0);
    expect_unharmed();
}

TEST(a_little_room_for_staging_only_means_more_rounds_to_the_store)
{
    struct take_settings settings = TAKE_SETTINGS_DEFAULT;
    struct take_result result;
    uint64_t steps = 0;

    settings.pause_us_wanted = 1000;
    settings.staged_bytes_max = 300 * PAGE_BYTES;
    ASSERT_OK(snapshot_take(client, store, settings, &result));

    ASSERT_OK(taken_guest_check(store, result.manifest->id, &steps));
    take_result_finish(&result);
}

/* Saves in a child process that is killed when it reaches the phase. */
static void save_and_kill(const char *phase)
{
    struct take_result result;
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)setenv("FERRY_TEST_STOP_AT", phase, 1);
        struct err *err = snapshot_take(client, store, TAKE_SETTINGS_DEFAULT, &result);
        _exit(err == NULL ? 0 : 1); /* it should not come here */
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);

    /* The dead process's end of the connection was also ours. */
    control_client_close(client);
    ASSERT_OK(machine_fake_connect(machine, "test", &client));
}

TEST(a_worker_killed_at_any_phase_leaves_the_machine_running_and_the_store_intact)
{
    static const char *const phases[] = {
        "describe",     "lend memory", "hold layers", "prepare disks", "begin",
        "copy memory",  "pause",       "save state",  "copy the rest", "mark the cut",
        "freeze disks", "resume",      "write",       "publish",
    };

    snapshot_store_destroy(store);
    ASSERT_OK(store_directory_open(folder, &store));
    struct take_result first = take();
    for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
        CLEANUP(cleanup_name_list) struct name_list ids = {0};
        save_and_kill(phases[i]);
        while (machine_fake_run_state(machine) != FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING ||
               machine_fake_borrowers(machine) != 0)
            continue; /* until it has noticed */
        expect_unharmed();
        ASSERT_OK(store_snapshots(store, TAKEN_GUEST_NAME, &ids));
        assert_int_equal(ids.count, 1);
    }

    let_guest_work(50);
    struct take_result second = take();
    uint64_t steps = 0;
    assert_string_equal(second.manifest->parent, first.manifest->id);
    ASSERT_OK(taken_guest_check(store, second.manifest->id, &steps));
    ASSERT_OK(taken_guest_check(store, first.manifest->id, &steps));
    take_result_finish(&first);
    take_result_finish(&second);
}

TEST(after_the_commit_a_killed_worker_costs_only_the_next_increment)
{
    CLEANUP(cleanup_name_list) struct name_list ids = {0};
    uint64_t steps = 0;

    snapshot_store_destroy(store);
    ASSERT_OK(store_directory_open(folder, &store));
    save_and_kill("keep tracking");

    ASSERT_OK(store_snapshots(store, TAKEN_GUEST_NAME, &ids));
    assert_int_equal(ids.count, 1);
    ASSERT_OK(taken_guest_check(store, ids.names[0], &steps));
    struct take_result next = take();
    assert_string_equal(next.manifest->parent, "");
    take_result_finish(&next);
}

#define WITH_MACHINE(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_MACHINE(a_snapshot_of_a_working_guest_is_exactly_its_memory_at_the_cut),
        WITH_MACHINE(a_snapshot_is_the_newest_also_when_the_clock_was_put_back),
        WITH_MACHINE(five_children_hold_only_changes_and_each_is_exact),
        WITH_MACHINE(a_full_snapshot_on_demand_has_no_parent),
        WITH_MACHINE(a_machine_that_does_not_know_the_newest_snapshot_is_saved_in_full),
        WITH_MACHINE(a_full_disk_is_told_and_leaves_everything_as_it_was),
        WITH_MACHINE(a_failure_at_the_commit_point_leaves_no_snapshot),
        WITH_MACHINE(a_little_room_for_staging_only_means_more_rounds_to_the_store),
        WITH_MACHINE(a_worker_killed_at_any_phase_leaves_the_machine_running_and_the_store_intact),
        WITH_MACHINE(after_the_commit_a_killed_worker_costs_only_the_next_increment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
