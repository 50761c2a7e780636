/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_snapshot_cut_test.c - snapshots inside images, and the power goes.
 *
 * A disk is written, snapshots are taken, gone back to and deleted, on a recorded file. In each
 * state that a cut can leave (cut_states.h), no entry may allow writing in place to what something
 * else refers to; after a repair there is no error, the disk holds what it may hold, and each
 * snapshot in the image holds what it was taken of. Then a snapshot is taken and all is written
 * over, which finds what would only harm later. Failing host requests must leave an image that
 * holds the same.
 *
 * FERRY_TEST_SEED, FERRY_TEST_STATES and FERRY_TEST_ROUNDS are those of qcow_power_cut_test.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/cut_repair.h"
#include "storage/testing/cut_states.h"
#include "storage/testing/disk_history.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define PHASES          12u
#define USE_AGAIN_EVERY 8u

struct shape {
    const char *name;
    unsigned cluster_bits;
    unsigned version;
    uint64_t virtual_bytes;
    unsigned refcount_bits;
    bool has_extended_l2;
};

struct run {
    struct cut_judge base;
    const struct shape *shape;
    struct record_log log;
    struct disk_history history;
    uint8_t *start; /* owned */
    size_t start_len;
    uint8_t *image; /* owned; as it is */
    size_t image_len;
    unsigned taken;
};

static struct chance chance;
static uint64_t states_checked, planned_writes, serial;

static uint64_t sector_count(const struct shape *shape)
{
    return shape->virtual_bytes / SECTOR_BYTES;
}

/* The image as a file whose changes are recorded; it is kept when the file is destroyed. */
static struct host_file *record(struct run *run)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_recorder_over((void **)&run->image, &run->image_len, &run->log, &file));
    return file;
}

static void write_some(struct run *run, struct block *disk)
{
    uint64_t total = sector_count(run->shape);
    uint64_t count = 1 + chance_below(&chance, 60), first = chance_below(&chance, total - count);
    struct disk_step *step = disk_history_begin(&run->history, run->log.count);
    uint8_t *data = malloc(count * SECTOR_BYTES);
    struct iovec iov = {data, count * SECTOR_BYTES};
    bool is_planned = false;

    assert_non_null(data);
    for (uint64_t i = 0; i < count; i++) {
        step->sectors[first + i] = ++serial;
        stamp_sector(data + i * SECTOR_BYTES, serial);
    }
    if (chance_below(&chance, 2) == 0)
        ASSERT_OK(planned_write(disk, data, iov.iov_len, first * SECTOR_BYTES, &is_planned));
    else
        ASSERT_OK(block_write(disk, &iov, 1, first * SECTOR_BYTES));
    planned_writes += is_planned;
    disk_history_end(&run->history, run->log.count);
    free(data);
}

/* The disk is used for a while, and closed. */
static void work(struct run *run)
{
    struct block *disk = NULL;

    ASSERT_OK(qcow_image_open(record(run), false, &disk));
    for (unsigned i = 0; i < 6; i++)
        write_some(run, disk);
    disk_history_begin(&run->history, run->log.count)->is_flush = true;
    ASSERT_OK(block_close(disk));
    disk_history_end(&run->history, run->log.count);
}

static void take(struct run *run, const char *name)
{
    struct host_file *file = record(run);
    struct disk_snapshot *snapshot = disk_history_snapshot(&run->history, name);

    ASSERT_OK(qcow_snapshot_create(file, name, 0));
    snapshot->create_end = run->log.count;
    host_file_destroy(file);
}

static void go_back(struct run *run, const struct disk_snapshot *snapshot)
{
    struct host_file *file = record(run);
    const struct disk_step *step = &run->history.steps[run->history.step_count - 1];

    memcpy(step->sectors, snapshot->sectors, sector_count(run->shape) * sizeof(*snapshot->sectors));
    ASSERT_OK(qcow_snapshot_apply(file, snapshot->name));
    host_file_destroy(file);
}

static void forget(struct run *run, struct disk_snapshot *snapshot)
{
    struct host_file *file = record(run);

    snapshot->delete_first = run->log.count;
    ASSERT_OK(qcow_snapshot_delete(file, snapshot->name));
    snapshot->delete_end = run->log.count;
    host_file_destroy(file);
}

static void do_phase(struct run *run)
{
    char name[32];

    work(run);
    /* No number: that could be the id of another one. */
    (void)snprintf(name, sizeof(name), "%c", (char)('a' + chance_below(&chance, 3)));
    disk_history_begin(&run->history, run->log.count)->is_flush = true;
    struct disk_snapshot *snapshot = disk_history_find(&run->history, name);
    if (snapshot == NULL)
        take(run, name);
    else if (chance_below(&chance, 5) < 3)
        go_back(run, snapshot);
    else
        forget(run, snapshot);
    disk_history_end(&run->history, run->log.count);
}

static void start_run(struct run *run)
{
    const struct shape *shape = run->shape;
    struct host_file *file = NULL;

    disk_history_init(&run->history, sector_count(shape), NULL);
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, (void **)&run->start, &run->start_len);
    ASSERT_OK(qcow_create(file, &(struct qcow_create_options){
                                    .virtual_bytes = shape->virtual_bytes,
                                    .version = shape->version,
                                    .cluster_bits = shape->cluster_bits,
                                    .refcount_bits = shape->refcount_bits,
                                    .has_extended_l2 = shape->has_extended_l2,
                                }));
    host_file_destroy(file);
    run->image = malloc(run->start_len);
    assert_non_null(run->image);
    memcpy(run->image, run->start, run->start_len);
    run->image_len = run->start_len;
}

static void finish_run(struct run *run)
{
    record_log_finish(&run->log);
    disk_history_finish(&run->history);
    free(run->start);
    free(run->image);
}

/* Writes over all of the disk, by plans where that can be: the mapping is in memory. */
static void write_over(struct block *disk)
{
    static uint8_t data[16 << 10];

    for (uint64_t at = 0; at < disk->virtual_bytes; at += sizeof(data)) {
        ASSERT_OK(planned_read(disk, data, sizeof(data), at, NULL));
        memset(data, 0, sizeof(data));
        ASSERT_OK(planned_write(disk, data, sizeof(data), at, NULL));
    }
}

/* Takes a snapshot and writes over all of the disk: the other snapshots must not change. */
static void use_again(struct run *run, const struct cut_state *state)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;
    uint8_t *bytes = NULL;
    size_t len = 0;
    char trouble[160];

    ASSERT_OK(host_file_fake_create(state->bytes, state->len, &file));
    host_file_fake_keep(file, (void **)&bytes, &len);
    ASSERT_OK(qcow_image_open(file, false, &disk));
    write_over(disk);
    ASSERT_OK(block_close(disk));
    struct qcow_verdict verdict = qcow_checker_run(bytes, len);
    /* Without a mark nothing was repaired: a count may be too high beside a flag. */
    if (run->shape->version >= 3 ? verdict.errors > 0 : verdict.hazards > 0)
        fail_msg("%s: used again after a cut: %s", run->shape->name, verdict.first);
    /* The disk is all zeros, as it was at its first step. */
    struct disk_history zeroed = run->history;
    zeroed.step_count = 1;
    if (!disk_history_allows(&zeroed, bytes, len, state->cut, trouble, sizeof(trouble)))
        fail_msg("%s: used again after a cut: %s", run->shape->name, trouble);
    free(bytes);
}

static void judge_state(struct cut_judge *judge, const struct cut_state *state)
{
    struct run *run = CONTAINER_OF(judge, struct run, base);
    struct qcow_verdict verdict = qcow_checker_run(state->bytes, state->len);
    char trouble[160];
    size_t len;

    if (verdict.is_refused || verdict.hazards > 0 ||
        (verdict.errors > 0 && run->shape->version >= 3 && !verdict.is_dirty))
        fail_msg("%s: cut after %zu writes, %s: %s", run->shape->name, state->cut, state->which,
                 verdict.first);
    uint8_t *repaired = cut_repair(state, &len);
    if (!disk_history_allows(&run->history, repaired, len, state->cut, trouble, sizeof(trouble)))
        fail_msg("%s: cut after %zu writes, %s: %s", run->shape->name, state->cut, state->which,
                 trouble);
    if (++states_checked % USE_AGAIN_EVERY == 0)
        use_again(run, state);
    free(repaired);
}

static void cut_power(const struct shape *shape)
{
    for (unsigned round = 0; round < chance_setting("FERRY_TEST_ROUNDS", 1); round++) {
        struct run run = {.base = {judge_state}, .shape = shape};
        start_run(&run);
        for (unsigned i = 0; i < PHASES; i++)
            do_phase(&run);
        struct qcow_verdict verdict = qcow_checker_run(run.image, run.image_len);
        assert_int_equal(verdict.errors + verdict.leaks, 0);
        cut_states_visit(
            &(struct cut_source){
                .start = run.start,
                .start_len = run.start_len,
                .log = &run.log,
                .subsets = (unsigned)chance_setting("FERRY_TEST_STATES", 4),
                .chance = &chance,
            },
            &run.base);
        finish_run(&run);
    }
}

TEST(snapshots_survive_every_cut)
{
    static const struct shape shapes[] = {
        {"version 3", 12, 3, 256 << 10, 16, false},
        {"version 2", 12, 2, 256 << 10, 16, false},
        {"small clusters", 9, 3, 128 << 10, 64, false},
        {"narrow counts", 10, 3, 128 << 10, 4, false},
        {"subclusters", 14, 3, 512 << 10, 16, true},
        {"large clusters", 16, 3, 1 << 20, 16, false},
    };

    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++)
        cut_power(&shapes[i]);
    assert_true(planned_writes > 20);
}

enum operation { OPERATION_CREATE, OPERATION_APPLY, OPERATION_DELETE, OPERATION_COUNT };

static struct err *operate(struct host_file *file, enum operation operation)
{
    switch (operation) {
    case OPERATION_CREATE: return qcow_snapshot_create(file, "new", 0);
    case OPERATION_APPLY: return qcow_snapshot_apply(file, "a");
    default: return qcow_snapshot_delete(file, "a");
    }
}

/* Fails one request; false: the operation has fewer. */
static bool fail_once(const struct run *run, enum operation operation, enum fake_fault fault,
                      uint64_t ordinal)
{
    struct host_file *file = NULL;
    uint8_t *bytes = NULL;
    size_t len = 0;
    char trouble[160];

    ASSERT_OK(host_file_fake_create(run->image, run->image_len, &file));
    host_file_fake_keep(file, (void **)&bytes, &len);
    host_file_fake_fail(file, fault, ordinal, 1);
    struct err *err = operate(file, operation);
    bool is_over = host_file_fake_operations(file) <= ordinal;
    assert_true(err == NULL || !is_over);
    err_free(err);
    host_file_destroy(file);

    struct cut_state state = {.bytes = bytes, .len = len};
    assert_int_equal(qcow_checker_run(bytes, len).hazards, 0);
    uint8_t *repaired = cut_repair(&state, &len);
    if (!disk_history_allows(&run->history, repaired, len, run->log.count, trouble,
                             sizeof(trouble)))
        fail_msg("operation %d, request %llu failed: %s", (int)operation,
                 (unsigned long long)ordinal, trouble);
    free(bytes);
    free(repaired);
    return !is_over;
}

TEST(a_failing_host_leaves_the_old_state_or_the_new)
{
    static const struct shape shape = {"failing", 12, 3, 256 << 10, 16, false};

    for (enum operation operation = 0; operation < OPERATION_COUNT; operation++)
        for (enum fake_fault fault = FAKE_FAULT_IO; fault <= FAKE_FAULT_SHORT_WRITE; fault++) {
            struct run run = {.shape = &shape};
            start_run(&run);
            work(&run);
            disk_history_begin(&run.history, run.log.count)->is_flush = true;
            take(&run, "a");
            disk_history_end(&run.history, run.log.count);
            struct disk_snapshot *taken = disk_history_find(&run.history, "a");
            work(&run);
            /* What the operation may leave is allowed too. */
            disk_history_begin(&run.history, run.log.count);
            if (operation == OPERATION_CREATE)
                (void)disk_history_snapshot(&run.history, "new");
            if (operation == OPERATION_APPLY)
                memcpy(run.history.steps[run.history.step_count - 1].sectors, taken->sectors,
                       sector_count(&shape) * sizeof(*taken->sectors));
            if (operation == OPERATION_DELETE)
                taken->delete_first = run.log.count;
            for (uint64_t i = 0; fail_once(&run, operation, fault, i);)
                i++;
            finish_run(&run);
        }
}

static int start(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 11));
    return 0;
}

static int finish(void **state)
{
    (void)state;
    print_message("%llu states checked\n", (unsigned long long)states_checked);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_survive_every_cut),
        cmocka_unit_test(a_failing_host_leaves_the_old_state_or_the_new),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
