/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "control/control_client.h"
#include "control/machine_fake.h"
#include "snapshot/snapshot_id.h"
#include "snapshot/store_memory.h"
#include "snapshot/take.h"
#include "snapshot/testing/taken_guest.h"
#include "snapshot/verify.h"

static struct snapshot_store *store;
static char full[SNAPSHOT_ID_LEN + 1];
static char child[SNAPSHOT_ID_LEN + 1];

static void take(struct control_client *client, char *out_id)
{
    struct take_result result;

    ASSERT_OK(snapshot_take(client, store, TAKE_SETTINGS_DEFAULT, &result));
    memcpy(out_id, result.manifest->id, SNAPSHOT_ID_LEN + 1);
    take_result_finish(&result);
}

/* A full snapshot and a child of it, in memory. */
static int save_two(void **state)
{
    struct machine_fake *machine = NULL;
    struct control_client *client = NULL;
    char folder[] = "/tmp/ferry-verify-XXXXXX";

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(setenv("FERRY_RUNTIME_DIR", folder, 1), 0);
    ASSERT_OK(store_memory_create(&store));
    ASSERT_OK(taken_guest_start(NULL, &machine, &client));
    take(client, full);
    uint64_t steps = machine_fake_steps(machine);
    while (machine_fake_steps(machine) < steps + 10)
        continue; /* the child has something to hold */
    take(client, child);
    control_client_close(client);
    machine_fake_destroy(machine);
    (void)rmdir(folder);
    return 0;
}

static int drop(void **state)
{
    (void)state;
    snapshot_store_destroy(store);
    return 0;
}

static uint64_t count_problems(const char *id)
{
    struct verify_report report;

    ASSERT_OK(
        snapshot_verify(store, TAKEN_GUEST_NAME, id, (struct sealed_disk_folders){0}, &report));
    uint64_t count = report.problem_count;
    assert_int_equal(verify_report_is_good(&report), count == 0);
    verify_report_finish(&report);
    return count;
}

static void flip(const char *id, enum snapshot_part part, off_t at)
{
    int fd = store_memory_part_fd(store, id, part);
    uint8_t byte = 0;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x20;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static off_t size_of(const char *id, enum snapshot_part part)
{
    return lseek(store_memory_part_fd(store, id, part), 0, SEEK_END);
}

TEST(an_undamaged_snapshot_is_read_completely)
{
    struct verify_report report;

    ASSERT_OK(
        snapshot_verify(store, TAKEN_GUEST_NAME, full, (struct sealed_disk_folders){0}, &report));

    assert_int_equal(report.problem_count, 0);
    assert_int_equal(report.pages_read + report.pages_zero, 16 * MIB / PAGE_BYTES);
    assert_true(report.pages_read >= 2500);
    ASSERT_OK(verify_report_error(&report));
    verify_report_finish(&report);
}

TEST(a_changed_byte_is_found_in_every_part_at_every_place)
{
    static const char percent[] = {0, 10, 30, 50, 70, 90, 99};

    for (unsigned part = 0; part < SNAPSHOT_PART_COUNT; part++) {
        for (size_t i = 0; i < sizeof(percent); i++) {
            off_t at = size_of(full, part) * percent[i] / 100;
            if (part == SNAPSHOT_PART_INDEX && at >= 4096 && at < 8192)
                continue; /* the padding of the table of sums means nothing */
            flip(full, part, at);
            assert_int_equal(count_problems(full), 1);
            flip(full, part, at);
        }
    }
    assert_int_equal(count_problems(full), 0);
}

TEST(damage_in_a_parents_memory_is_found_in_the_child_that_uses_it)
{
    /* Pages behind the working set are only in the parent. */
    flip(full, SNAPSHOT_PART_MEMORY, size_of(full, SNAPSHOT_PART_MEMORY) - 1);

    assert_int_equal(count_problems(child), 1);
    flip(full, SNAPSHOT_PART_MEMORY, size_of(full, SNAPSHOT_PART_MEMORY) - 1);
    assert_int_equal(count_problems(child), 0);
}

TEST(a_part_that_was_cut_short_is_one_problem)
{
    for (unsigned part = 0; part < SNAPSHOT_PART_COUNT; part++) {
        int fd = store_memory_part_fd(store, child, part);
        uint8_t last = 0;
        off_t bytes = size_of(child, part);
        assert_int_equal(pread(fd, &last, 1, bytes - 1), 1);
        assert_int_equal(ftruncate(fd, bytes - 1), 0);
        assert_int_equal(count_problems(child), 1);
        assert_int_equal(pwrite(fd, &last, 1, bytes - 1), 1);
    }
    assert_int_equal(count_problems(child), 0);
}

TEST(many_damaged_pages_are_counted_and_the_first_ones_told)
{
    struct verify_report report;

    for (off_t page = 0; page < 100; page++)
        flip(full, SNAPSHOT_PART_MEMORY, page * (off_t)PAGE_BYTES);
    ASSERT_OK(
        snapshot_verify(store, TAKEN_GUEST_NAME, full, (struct sealed_disk_folders){0}, &report));

    assert_int_equal(report.problem_count, 100);
    assert_in_range(report.problems.count, 1, 99);
    assert_fails(verify_report_error(&report), ERR_INVALID);
    verify_report_finish(&report);
    for (off_t page = 0; page < 100; page++)
        flip(full, SNAPSHOT_PART_MEMORY, page * (off_t)PAGE_BYTES);
}

TEST(a_snapshot_that_does_not_exist_is_not_found)
{
    struct verify_report report;

    assert_fails(snapshot_verify(store, "db", full, (struct sealed_disk_folders){0}, &report),
                 ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_undamaged_snapshot_is_read_completely),
        cmocka_unit_test(a_changed_byte_is_found_in_every_part_at_every_place),
        cmocka_unit_test(damage_in_a_parents_memory_is_found_in_the_child_that_uses_it),
        cmocka_unit_test(a_part_that_was_cut_short_is_one_problem),
        cmocka_unit_test(many_damaged_pages_are_counted_and_the_first_ones_told),
        cmocka_unit_test(a_snapshot_that_does_not_exist_is_not_found),
    };

    return cmocka_run_group_tests(tests, save_two, drop);
}
