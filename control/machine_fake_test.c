/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_fake_test.c - a worker's whole path over the control protocol: track, save, move, undo.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bitmap.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "control/control_client.h"
#include "control/lent_memory.h"
#include "control/machine_fake.h"
#include "proto/page_index.h"

static const struct machine_fake_config busy = {
    .memory_mib = 8,
    .memory_below_4g_mib = 3,
    .filled_pages = 700,
    .working_set_pages = 300,
    .pages_per_second = 20000,
    .seed = 42,
};

static struct machine_fake *start(const struct machine_fake_config *config)
{
    struct machine_fake *machine;
    ASSERT_OK(machine_fake_start(config, &machine));
    return machine;
}

static struct control_client *connect_to(struct machine_fake *machine)
{
    struct control_client *client;
    ASSERT_OK(machine_fake_connect(machine, "test", &client));
    return client;
}

/* Without a clock of its own: the machine's steps are the measure of time. */
static void wait_for_steps(struct machine_fake *machine, uint64_t more)
{
    uint64_t wanted = machine_fake_steps(machine) + more;
    while (machine_fake_steps(machine) < wanted)
        continue;
}

/* Copies what is marked, and returns how many pages that were. */
static uint64_t copy_dirty(const struct lent_memory *memory, uint8_t *copy)
{
    uint64_t pages = 0;
    uint64_t count = lent_memory_page_count(memory);
    for (size_t word = 0; word < bitmap_words(count); word++) {
        uint64_t bits = bitmap_atomic_take_word(lent_memory_dirty(memory), word);
        for (; bits != 0; bits &= bits - 1, pages++) {
            uint64_t page = word * BITMAP_WORD_BITS + (uint64_t)__builtin_ctzll(bits);
            memcpy(copy + page * PAGE_BYTES, lent_memory_base(memory) + page * PAGE_BYTES,
                   PAGE_BYTES);
        }
    }
    return pages;
}

static uint64_t page_count_of(const struct machine_fake_config *config)
{
    return config->memory_mib * MIB / PAGE_BYTES;
}

static uint8_t *allocate_copy(const struct machine_fake_config *config)
{
    uint8_t *copy = calloc(page_count_of(config), PAGE_BYTES);
    assert_non_null(copy);
    return copy;
}

static void configure_like(struct control_client *source, struct control_client *target)
{
    Ferry__ControlReply *reply;
    ASSERT_OK(control_describe(source, &reply));
    ASSERT_OK(control_configure(target, reply->description, false, NULL, 0));
    ferry__control_reply__free_unpacked(reply, NULL);
}

static void move_state(struct control_client *source, struct control_client *target)
{
    Ferry__ControlReply *reply;
    ASSERT_OK(control_save_state(source, &reply));
    ASSERT_OK(control_load_state(target, reply->state));
    ferry__control_reply__free_unpacked(reply, NULL);
}

TEST(a_running_guest_is_moved_and_every_page_is_right)
{
    struct machine_fake *source = start(&busy);
    struct machine_fake *target = start(NULL);
    struct control_client *from = connect_to(source);
    struct control_client *to = connect_to(target);
    struct lent_memory *lent, *arriving;
    configure_like(from, to);
    ASSERT_OK(lent_memory_borrow(from, FERRY__LEND_PURPOSE__LEND_MIGRATE, NULL, &lent));
    ASSERT_OK(lent_memory_borrow(to, FERRY__LEND_PURPOSE__LEND_INCOMING, NULL, &arriving));
    assert_int_equal(lent_memory_page_count(lent), page_count_of(&busy));
    assert_null(lent_memory_dirty(arriving));

    assert_int_equal(copy_dirty(lent, lent_memory_base(arriving)), page_count_of(&busy));
    for (int round = 0; round < 3; round++) {
        wait_for_steps(source, 500);
        ASSERT_OK(control_harvest(from, 0, 0, NULL));
        assert_true(copy_dirty(lent, lent_memory_base(arriving)) <= busy.working_set_pages);
    }
    ASSERT_OK(control_pause(from, true, NULL));
    move_state(from, to);
    ASSERT_OK(control_harvest(from, 0, 0, NULL));
    (void)copy_dirty(lent, lent_memory_base(arriving));
    static const uint8_t session[16] = {1};
    ASSERT_OK(control_hand_over(from, "host-b:7420", session));
    ASSERT_OK(control_resume(to));
    ASSERT_OK(control_quit(from, "moved"));

    wait_for_steps(target, 500);
    ASSERT_OK(machine_fake_check(target));
    assert_true(machine_fake_has_quit(source));
    lent_memory_return(lent);
    lent_memory_return(arriving);
    control_client_close(from);
    control_client_close(to);
    machine_fake_destroy(source);
    machine_fake_destroy(target);
}

TEST(harvesting_a_range_leaves_the_rest_for_later)
{
    struct machine_fake *machine = start(&busy);
    struct control_client *client = connect_to(machine);
    struct lent_memory *lent;
    uint8_t *copy = allocate_copy(&busy);
    ASSERT_OK(lent_memory_borrow(client, FERRY__LEND_PURPOSE__LEND_MIGRATE, NULL, &lent));
    (void)copy_dirty(lent, copy);
    wait_for_steps(machine, 400);
    ASSERT_OK(control_pause(client, true, NULL));

    uint64_t dirty;
    ASSERT_OK(control_harvest(client, 64, 64, &dirty));
    assert_int_equal(dirty, 64);
    ASSERT_OK(control_harvest(client, 0, 0, &dirty));
    assert_int_equal(dirty, busy.working_set_pages);
    assert_fails(control_harvest(client, 2000, 100, &dirty), ERR_INVALID);
    assert_fails(control_harvest(client, UINT64_MAX, 2, &dirty), ERR_INVALID);

    free(copy);
    lent_memory_return(lent);
    control_client_close(client);
    machine_fake_destroy(machine);
}

TEST(two_borrowers_each_see_every_change)
{
    struct machine_fake *machine = start(&busy);
    struct control_client *clients[2];
    struct lent_memory *lent[2];
    uint8_t *copies[2];
    for (int i = 0; i < 2; i++) {
        clients[i] = connect_to(machine);
        copies[i] = allocate_copy(&busy);
        ASSERT_OK(
            lent_memory_borrow(clients[i], FERRY__LEND_PURPOSE__LEND_MIGRATE, NULL, &lent[i]));
        (void)copy_dirty(lent[i], copies[i]);
    }
    assert_int_equal(machine_fake_borrowers(machine), 2);

    for (int round = 0; round < 4; round++) {
        wait_for_steps(machine, 100);
        ASSERT_OK(control_harvest(clients[round % 2], 0, 0, NULL));
    }
    ASSERT_OK(control_pause(clients[0], true, NULL));
    for (int i = 0; i < 2; i++)
        ASSERT_OK(control_harvest(clients[i], 0, 0, NULL));

    for (int i = 0; i < 2; i++) {
        (void)copy_dirty(lent[i], copies[i]);
        assert_memory_equal(copies[i], lent_memory_base(lent[i]), busy.memory_mib * MIB);
    }
    /* Closing the first connection ends its pause, so only after both have looked. */
    for (int i = 0; i < 2; i++) {
        lent_memory_return(lent[i]);
        control_client_close(clients[i]);
        free(copies[i]);
    }
    machine_fake_destroy(machine);
}

/* Takes a snapshot into `copy`, as far as the cut. */
static struct lent_memory *snapshot_until_cut(struct control_client *client, const char *parent,
                                              uint8_t *copy)
{
    struct lent_memory *lent;
    ASSERT_OK(lent_memory_borrow(client, FERRY__LEND_PURPOSE__LEND_SNAPSHOT, parent, &lent));
    ASSERT_OK(control_harvest(client, 0, 0, NULL));
    ASSERT_OK(control_pause(client, true, NULL));
    ASSERT_OK(control_mark_cut(client));
    (void)copy_dirty(lent, copy);
    assert_memory_equal(copy, lent_memory_base(lent), busy.memory_mib * MIB);
    ASSERT_OK(control_resume(client));
    return lent;
}

TEST(a_chain_of_snapshots_survives_one_that_fails)
{
    struct machine_fake *machine = start(&busy);
    uint8_t *copy = allocate_copy(&busy);
    uint8_t *scratch = allocate_copy(&busy);

    struct control_client *client = connect_to(machine);
    struct lent_memory *lent = snapshot_until_cut(client, NULL, copy);
    assert_false(lent_memory_is_incremental(lent));
    ASSERT_OK(control_keep_tracking(client, "first"));
    lent_memory_return(lent);
    control_client_close(client);

    wait_for_steps(machine, 50);
    client = connect_to(machine);
    memcpy(scratch, copy, busy.memory_mib * MIB);
    lent = snapshot_until_cut(client, "first", scratch);
    assert_true(lent_memory_is_incremental(lent));
    lent_memory_return(lent);
    control_client_close(client); /* without keeping it: its disk was full */

    wait_for_steps(machine, 10);
    client = connect_to(machine);
    lent = snapshot_until_cut(client, "first", copy); /* all since the first */
    assert_true(lent_memory_is_incremental(lent));
    ASSERT_OK(control_keep_tracking(client, "third"));
    lent_memory_return(lent);
    control_client_close(client);

    client = connect_to(machine);
    ASSERT_OK(lent_memory_borrow(client, FERRY__LEND_PURPOSE__LEND_SNAPSHOT, "first", &lent));
    assert_false(lent_memory_is_incremental(lent)); /* that is not its parent */
    lent_memory_return(lent);
    control_client_close(client);
    free(copy);
    free(scratch);
    machine_fake_destroy(machine);
}

static void wait_for_state(struct machine_fake *machine, Ferry__ControlRunState wanted)
{
    while (machine_fake_run_state(machine) != wanted)
        continue;
}

TEST(a_hang_up_undoes_a_pause_lent_memory_and_prepared_disks)
{
    char disk[] = "/tmp/machine-fake-XXXXXX";
    int fd = mkstemp(disk);
    assert_true(fd >= 0);
    struct machine_fake_config config = busy;
    config.disk_path = disk;
    struct machine_fake *machine = start(&config);
    struct control_client *client = connect_to(machine);
    struct lent_memory *lent;
    ASSERT_OK(lent_memory_borrow(client, FERRY__LEND_PURPOSE__LEND_SNAPSHOT, NULL, &lent));
    ASSERT_OK(control_prepare_disks(client));
    ASSERT_OK(control_pause(client, true, NULL));
    char overlay[64];
    (void)snprintf(overlay, sizeof(overlay), "%s.1", disk);
    assert_int_equal(access(overlay, F_OK), 0);

    control_client_close(client);
    wait_for_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING);
    assert_int_equal(machine_fake_borrowers(machine), 0);
    assert_int_not_equal(access(overlay, F_OK), 0);

    lent_memory_return(lent);
    machine_fake_destroy(machine);
    assert_int_equal(unlink(disk), 0);
    close(fd);
}

TEST(frozen_disks_stay_switched_and_sealed)
{
    char disk[] = "/tmp/machine-fake-XXXXXX";
    int fd = mkstemp(disk);
    assert_true(fd >= 0);
    struct machine_fake_config config = busy;
    config.disk_path = disk;
    struct machine_fake *machine = start(&config);
    struct control_client *client = connect_to(machine);
    Ferry__ControlReply *reply;
    ASSERT_OK(control_prepare_disks(client));
    assert_fails(control_freeze_disks(client, &reply), ERR_STATE);
    ASSERT_OK(control_pause(client, true, NULL));
    ASSERT_OK(control_freeze_disks(client, &reply));

    assert_int_equal(reply->disks->n_disks, 1);
    assert_string_equal(reply->disks->disks[0]->frozen_path, disk);
    assert_string_not_equal(reply->disks->disks[0]->active_path, disk);
    assert_int_equal(unlink(reply->disks->disks[0]->active_path), 0);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0444);

    ferry__control_reply__free_unpacked(reply, NULL);
    control_client_close(client);
    machine_fake_destroy(machine);
    assert_int_equal(unlink(disk), 0);
    close(fd);
}

TEST(a_machine_handed_over_stays_still_until_it_is_taken_back)
{
    struct machine_fake *machine = start(&busy);
    struct control_client *client = connect_to(machine);
    static const uint8_t session[16] = {7};
    assert_fails(control_hand_over(client, "host-b", session), ERR_STATE);
    ASSERT_OK(control_pause(client, true, NULL));
    ASSERT_OK(control_hand_over(client, "host-b", session));
    control_client_close(client);

    client = connect_to(machine);
    Ferry__ControlReply *reply;
    assert_fails(control_resume(client), ERR_STATE);
    ASSERT_OK(control_status(client, &reply));
    assert_int_equal(reply->status->state, FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER);
    assert_string_equal(reply->status->handed_to, "host-b");
    assert_memory_equal(reply->status->handed_session.data, session, sizeof(session));
    ferry__control_reply__free_unpacked(reply, NULL);
    ASSERT_OK(control_take_back(client));
    ASSERT_OK(control_resume(client));
    assert_int_equal(machine_fake_run_state(machine), FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING);
    control_client_close(client);
    machine_fake_destroy(machine);
}

TEST(a_machine_whose_builder_hangs_up_is_empty_again)
{
    struct machine_fake *source = start(&busy);
    struct machine_fake *target = start(NULL);
    struct control_client *from = connect_to(source);
    struct control_client *to = connect_to(target);
    configure_like(from, to);
    assert_fails(control_resume(to), ERR_STATE); /* no state yet */
    control_client_close(to);

    wait_for_state(target, FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY);
    control_client_close(from);
    machine_fake_destroy(source);
    machine_fake_destroy(target);
}

/* All pages into one file, holes as zero pages. */
static int write_snapshot(const struct lent_memory *lent, uint64_t *out_checksum, int *out_pages)
{
    struct page_index_builder *builder;
    uint64_t count = lent_memory_page_count(lent);
    int index = memfd_create("index", MFD_CLOEXEC);
    int pages = memfd_create("pages", MFD_CLOEXEC);
    ASSERT_OK(page_index_builder_create(count, &builder));
    uint64_t first = 0, run = 0, file_page = 0;
    for (uint64_t from = 0;; from = first + run) {
        ASSERT_OK(lent_memory_next_data(lent, from, &first, &run));
        if (run == 0)
            break;
        for (uint64_t page = first; page < first + run; page++, file_page++) {
            const uint8_t *at = lent_memory_base(lent) + page * PAGE_BYTES;
            assert_int_equal(pwrite(pages, at, PAGE_BYTES, (off_t)(file_page * PAGE_BYTES)),
                             PAGE_BYTES);
            page_index_builder_set(builder, page,
                                   (struct page_location){.file_page = file_page,
                                                          .checksum = XXH3_64bits(at, PAGE_BYTES)});
        }
    }
    assert_true(file_page < count); /* the rest was left alone */
    ASSERT_OK(page_index_builder_write(builder, 1, index, "index", out_checksum));
    page_index_builder_destroy(builder);
    *out_pages = pages;
    return index;
}

TEST(a_machine_is_restored_from_an_index_and_its_files)
{
    struct machine_fake *source = start(&busy);
    struct machine_fake *target = start(NULL);
    struct control_client *from = connect_to(source);
    struct control_client *to = connect_to(target);
    struct lent_memory *lent;
    configure_like(from, to);
    ASSERT_OK(lent_memory_borrow(from, FERRY__LEND_PURPOSE__LEND_SNAPSHOT, NULL, &lent));
    wait_for_steps(source, 100);
    ASSERT_OK(control_pause(from, true, NULL));

    uint64_t checksum;
    int fds[2];
    fds[0] = write_snapshot(lent, &checksum, &fds[1]);
    assert_fails(control_memory_source(to, checksum + 1, fds, 2), ERR_INVALID);
    assert_fails(control_memory_source(to, checksum, fds, 1), ERR_INVALID);
    ASSERT_OK(control_memory_source(to, checksum, fds, 2));
    move_state(from, to);
    ASSERT_OK(control_check_disks(to));
    ASSERT_OK(control_resume(to));

    ASSERT_OK(machine_fake_check(target));
    close(fds[0]);
    close(fds[1]);
    lent_memory_return(lent);
    control_client_close(from);
    control_client_close(to);
    machine_fake_destroy(source);
    machine_fake_destroy(target);
}

TEST(state_with_an_unknown_section_is_refused_by_name)
{
    struct machine_fake *source = start(&busy);
    struct machine_fake *target = start(NULL);
    struct control_client *from = connect_to(source);
    struct control_client *to = connect_to(target);
    configure_like(from, to);
    Ferry__Section section = FERRY__SECTION__INIT;
    Ferry__Section *sections[] = {&section};
    Ferry__MachineState state = FERRY__MACHINE_STATE__INIT;
    section.name = (char *)"floppy";
    section.checksum = XXH3_64bits("", 0);
    state.n_sections = 1;
    state.sections = sections;

    struct err *err = control_load_state(to, &state);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "'floppy'"));
    assert_fails(err, ERR_INCOMPATIBLE);
    control_client_close(from);
    control_client_close(to);
    machine_fake_destroy(source);
    machine_fake_destroy(target);
}

static char folder[] = "/tmp/machine-fake-run-XXXXXX";

static int set_up(void **unused)
{
    (void)unused;
    return mkdtemp(folder) == NULL ? -1 : setenv("FERRY_RUNTIME_DIR", folder, 1);
}

static int tear_down(void **unused)
{
    (void)unused;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_running_guest_is_moved_and_every_page_is_right),
        cmocka_unit_test(harvesting_a_range_leaves_the_rest_for_later),
        cmocka_unit_test(two_borrowers_each_see_every_change),
        cmocka_unit_test(a_chain_of_snapshots_survives_one_that_fails),
        cmocka_unit_test(a_hang_up_undoes_a_pause_lent_memory_and_prepared_disks),
        cmocka_unit_test(frozen_disks_stay_switched_and_sealed),
        cmocka_unit_test(a_machine_handed_over_stays_still_until_it_is_taken_back),
        cmocka_unit_test(a_machine_whose_builder_hangs_up_is_empty_again),
        cmocka_unit_test(a_machine_is_restored_from_an_index_and_its_files),
        cmocka_unit_test(state_with_an_unknown_section_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
