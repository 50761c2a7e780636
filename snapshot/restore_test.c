/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/unit_test.h"
#include "control/control_client.h"
#include "control/machine_fake.h"
#include "snapshot/catalog.h"
#include "snapshot/restore.h"
#include "snapshot/store_directory.h"
#include "snapshot/take.h"
#include "snapshot/testing/taken_guest.h"

static struct snapshot_store *store;
static struct snapshot_name saved;
static uint64_t saved_steps;
static char folder[64];
static struct machine_fake *target;
static struct control_client *client;

/* A child snapshot of a machine that has ended, and an empty machine to restore it into. */
static int start(void **state)
{
    struct machine_fake *machine = NULL;
    struct take_result result;

    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/ferry-restore-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(setenv("FERRY_RUNTIME_DIR", folder, 1), 0);
    ASSERT_OK(store_directory_open(folder, &store));
    ASSERT_OK(taken_guest_start(NULL, &machine, &client));
    for (int i = 0; i < 2; i++) {
        ASSERT_OK(snapshot_take(client, store, TAKE_SETTINGS_DEFAULT, &result));
        (void)snprintf(saved.machine, sizeof(saved.machine), "%s", result.manifest->machine);
        (void)snprintf(saved.id.text, sizeof(saved.id.text), "%s", result.manifest->id);
        take_result_finish(&result);
    }
    ASSERT_OK(taken_guest_check(store, saved.id.text, &saved_steps));
    control_client_close(client);
    machine_fake_destroy(machine);
    ASSERT_OK(machine_fake_start(NULL, &target));
    ASSERT_OK(machine_fake_connect(target, "test", &client));
    return 0;
}

static int stop(void **state)
{
    char command[128];

    (void)state;
    control_client_close(client);
    machine_fake_destroy(target);
    snapshot_store_destroy(store);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static struct err *restore(struct restore_settings settings, struct restore_result *out_result)
{
    settings.program = "test";
    return snapshot_restore_into(client, store, &saved, settings, out_result);
}

TEST(the_guest_goes_on_where_it_was_cut)
{
    struct restore_result result;

    ASSERT_OK(restore((struct restore_settings){0}, &result));

    assert_int_equal(machine_fake_run_state(target), FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING);
    assert_true(machine_fake_steps(target) >= saved_steps);
    ASSERT_OK(machine_fake_check(target));
    assert_true(result.first_run_us > 0 && result.first_run_us <= result.total_us);
    assert_string_equal(result.timings.rows[result.timings.count - 1].phase, "resume");
    restore_result_finish(&result);
}

TEST(a_restored_guest_can_be_saved_again)
{
    struct restore_result result;
    struct take_result taken;
    uint64_t steps = 0;

    ASSERT_OK(restore((struct restore_settings){0}, &result));
    ASSERT_OK(snapshot_take(client, store, TAKE_SETTINGS_DEFAULT, &taken));

    ASSERT_OK(taken_guest_check(store, taken.manifest->id, &steps));
    assert_true(steps >= saved_steps);
    take_result_finish(&taken);
    restore_result_finish(&result);
}

TEST(another_name_is_taken)
{
    struct restore_result result;
    struct control_client *named = NULL;

    ASSERT_OK(restore((struct restore_settings){.name = "copy", .is_verified = true}, &result));

    ASSERT_OK(control_client_connect("copy", "test", &named));
    control_client_close(named);
    restore_result_finish(&result);
}

TEST(paused_means_that_the_guest_does_not_run)
{
    struct restore_result result;

    ASSERT_OK(restore((struct restore_settings){.is_paused = true}, &result));

    assert_int_equal(machine_fake_run_state(target), FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED);
    assert_int_equal(machine_fake_steps(target), saved_steps);
    assert_int_equal(result.first_run_us, 0);
    ASSERT_OK(control_resume(client));
    ASSERT_OK(machine_fake_check(target));
    restore_result_finish(&result);
}

/* As if the machine had been saved with a network on a tap that it was given as a descriptor. */
static void add_network(void)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    CLEANUP(cleanup_free) void *data = NULL;
    Ferry__NetConfig *net = malloc(sizeof(*net));
    char path[256];
    size_t len = 0;

    assert_non_null(net);
    ferry__net_config__init(net);
    net->id = strdup("lan");
    net->tap_by_fd = true;
    net->mac = (ProtobufCBinaryData){.len = 6, .data = calloc(1, 6)};
    ASSERT_OK(catalog_load(store, saved.machine, saved.id.text, &manifest));
    manifest->description->config->nets = calloc(1, sizeof(Ferry__NetConfig *));
    assert_non_null(manifest->description->config->nets);
    manifest->description->config->nets[0] = net;
    manifest->description->config->n_nets = 1;
    ASSERT_OK(manifest_pack(manifest, &data, &len));
    (void)snprintf(path, sizeof(path), "%s/%s/%s/manifest", folder, saved.machine, saved.id.text);
    ASSERT_OK(file_replace(path, data, len, 0600));
}

TEST(networks_get_other_taps)
{
    static const char *const taps[] = {"lan=tap7"};
    struct restore_result result;

    add_network();
    assert_fails(restore((struct restore_settings){0}, &result), ERR_INCOMPATIBLE);
    for (size_t i = 0; i < 3; i++) {
        static const char *const wrong[] = {"wan=tap7", "lan=", "lan"};
        const struct restore_settings settings = {.taps = &wrong[i], .tap_count = 1};
        assert_fails(restore(settings, &result), i == 0 ? ERR_NOT_FOUND : ERR_INVALID);
    }
    ASSERT_OK(restore((struct restore_settings){.taps = taps, .tap_count = 1}, &result));

    assert_string_equal(result.manifest->description->config->nets[0]->tap, "tap7");
    assert_false(result.manifest->description->config->nets[0]->tap_by_fd);
    restore_result_finish(&result);
}

static void damage(const char *part, long at)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s/%s/%s", folder, saved.machine, saved.id.text, part);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fputc(0xee, file), 0xee);
    assert_int_equal(fclose(file), 0);
}

static void expect_refused(struct restore_settings settings, enum err_kind kind)
{
    struct restore_result result;

    assert_fails(restore(settings, &result), kind);
    assert_int_equal(machine_fake_run_state(target), FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY);
}

TEST(damage_is_refused_before_anything_starts)
{
    damage("state", 20);
    expect_refused((struct restore_settings){0}, ERR_INVALID);
}

TEST(a_damaged_index_head_is_refused_before_anything_starts)
{
    damage("index", 20);
    expect_refused((struct restore_settings){0}, ERR_INVALID);
}

TEST(a_damaged_manifest_is_refused_before_anything_starts)
{
    damage("manifest", 50);
    expect_refused((struct restore_settings){0}, ERR_INVALID);
}

TEST(verification_finds_a_damaged_page_before_anything_starts)
{
    damage("memory", 5000);
    expect_refused((struct restore_settings){.is_verified = true}, ERR_INVALID);
}

TEST(a_missing_parent_is_refused_before_anything_starts)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;

    ASSERT_OK(catalog_load(store, saved.machine, saved.id.text, &manifest));
    ASSERT_OK(store_remove(store, saved.machine, manifest->parent, NULL));
    expect_refused((struct restore_settings){0}, ERR_IO);
}

TEST(a_name_that_is_running_is_refused_before_a_process_starts)
{
    struct machine_fake *running = NULL;
    struct control_client *other = NULL;
    struct restore_result result;

    ASSERT_OK(taken_guest_start(NULL, &running, &other));
    assert_fails(
        snapshot_restore(store, &saved, (struct restore_settings){.program = "test"}, &result),
        ERR_STATE);

    control_client_close(other);
    machine_fake_destroy(running);
}

#define WITH_MACHINE(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_MACHINE(the_guest_goes_on_where_it_was_cut),
        WITH_MACHINE(a_restored_guest_can_be_saved_again),
        WITH_MACHINE(another_name_is_taken),
        WITH_MACHINE(paused_means_that_the_guest_does_not_run),
        WITH_MACHINE(networks_get_other_taps),
        WITH_MACHINE(damage_is_refused_before_anything_starts),
        WITH_MACHINE(a_damaged_index_head_is_refused_before_anything_starts),
        WITH_MACHINE(a_damaged_manifest_is_refused_before_anything_starts),
        WITH_MACHINE(verification_finds_a_damaged_page_before_anything_starts),
        WITH_MACHINE(a_missing_parent_is_refused_before_anything_starts),
        WITH_MACHINE(a_name_that_is_running_is_refused_before_a_process_starts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
