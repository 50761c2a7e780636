/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap_cut_test.c - a bitmap never says less than is true, whenever the power goes.
 *
 * Bitmaps are added, kept up, cleared and removed on a recorded file. In each state that a cut can
 * leave (cut_states.h) and after a repair there is no error, the backing file's name is as it was,
 * and a bitmap that claims to be reliable shows every sector that differs from what the disk held
 * when it was last made or cleared.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/qcow/qcow_bitmap.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_repair.h"
#include "storage/testing/cut_states.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define DISK_BYTES   (256 * KIB)
#define SECTORS      (DISK_BYTES / SECTOR_BYTES)
#define BACKING_NAME "a-name-that-takes-some-room.img"
#define ROUNDS       6u
#define BASELINES    32u

/* The content when the bitmap was made or cleared, and in which cuts it may have been. */
struct baseline {
    size_t first_record; /* from here on it may be the one */
    uint64_t sectors[SECTORS];
};

struct run {
    struct cut_judge base;
    const struct qcow_create_options *options;
    struct record_log log;
    uint8_t *start, *image; /* owned */
    size_t start_len, image_len;
    uint64_t now[SECTORS];
    struct baseline baselines[BASELINES];
    unsigned baseline_count;
};

static struct chance chance;
static uint64_t states_checked, reliable_seen, planned_writes, serial;

/* The image as a file whose changes are recorded; it is kept when the file is destroyed. */
static struct host_file *record(struct run *run)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_recorder_over((void **)&run->image, &run->image_len, &run->log, &file));
    return file;
}

static void note_baseline(struct run *run)
{
    assert_true(run->baseline_count < BASELINES);
    struct baseline *baseline = &run->baselines[run->baseline_count++];
    baseline->first_record = run->log.count;
    memcpy(baseline->sectors, run->now, sizeof(run->now));
}

static void work(struct run *run)
{
    struct block *disk = NULL, *backing = NULL;
    uint8_t data[20 * SECTOR_BYTES];

    ASSERT_OK(qcow_image_open(record(run), false, &disk));
    ASSERT_OK(block_memory_create(DISK_BYTES, &backing));
    qcow_image_set_backing(disk, backing);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t count = 1 + chance_below(&chance, 20);
        uint64_t first = chance_below(&chance, SECTORS - count);
        bool is_planned = false;
        /* With the mapping in memory, the first change could be planned, too. */
        ASSERT_OK(planned_read(disk, data, count * SECTOR_BYTES, first * SECTOR_BYTES, NULL));
        for (uint64_t j = 0; j < count; j++) {
            run->now[first + j] = ++serial;
            stamp_sector(data + j * SECTOR_BYTES, serial);
        }
        ASSERT_OK(
            planned_write(disk, data, count * SECTOR_BYTES, first * SECTOR_BYTES, &is_planned));
        planned_writes += is_planned;
        if (i == 2)
            ASSERT_OK(block_flush(disk));
    }
    ASSERT_OK(block_close(disk));
}

#define CHANGE(call)                                                                               \
    do {                                                                                           \
        struct host_file *file = record(run);                                                      \
        ASSERT_OK(call);                                                                           \
        host_file_destroy(file);                                                                   \
    } while (0)

static void do_round(struct run *run, unsigned round)
{
    note_baseline(run);
    if (round % 3 == 0)
        CHANGE(qcow_bitmap_add(file, "map", 12, true));
    else
        CHANGE(qcow_bitmap_clear(file, "map"));
    work(run);
    work(run);
    if (round % 3 == 1) {
        CHANGE(qcow_bitmap_add(file, "other", 9, false));
        CHANGE(qcow_bitmap_merge(file, "map", "other"));
        CHANGE(qcow_bitmap_remove(file, "other"));
    }
    if (round % 3 == 2)
        CHANGE(qcow_bitmap_remove(file, "map"));
}

static uint64_t sector_at(const uint8_t *image, size_t len, uint64_t sector)
{
    uint8_t data[SECTOR_BYTES];

    return qcow_checker_read(image, len, sector * SECTOR_BYTES, data) == QCOW_SECTOR_DATA
               ? stamp_of(data)
               : 0;
}

static bool shows_all(const struct qcow_bitmap *bitmap, const struct baseline *baseline,
                      const uint64_t *sectors)
{
    for (uint64_t i = 0; i < SECTORS; i++) {
        uint64_t bit = i * SECTOR_BYTES >> bitmap->granularity_bits;
        if (sectors[i] != baseline->sectors[i] && (bitmap->bits[bit / 8] >> bit % 8 & 1) == 0)
            return false;
    }
    return true;
}

/* It must be right for one of the last two baselines that may have been in force. */
static void judge_bitmap(const struct run *run, const struct qcow_bitmap *bitmap,
                         const uint64_t *sectors, const struct cut_state *state)
{
    unsigned last = 0;

    if (bitmap->bits == NULL || strcmp(bitmap->name, "map") != 0)
        return;
    reliable_seen++;
    for (unsigned i = 0; i < run->baseline_count; i++)
        if (run->baselines[i].first_record <= state->cut)
            last = i;
    if (!shows_all(bitmap, &run->baselines[last], sectors) &&
        !(last > 0 && shows_all(bitmap, &run->baselines[last - 1], sectors)))
        fail_msg("cut after %zu writes, %s: the bitmap misses a change", state->cut, state->which);
}

static void judge_state(struct cut_judge *judge, const struct cut_state *state)
{
    const struct run *run = CONTAINER_OF(judge, struct run, base);
    struct qcow_repair_report report;
    struct qcow_bitmap_set set;
    struct qcow_header header;
    struct host_file *file = NULL;
    uint64_t sectors[SECTORS];

    ASSERT_OK(host_file_fake_create(state->bytes, state->len, &file));
    ASSERT_OK(qcow_repair(file, QCOW_REPAIR_ALL, NULL, &report));
    if (report.after.errors + report.after.leaks > 0)
        fail_msg("cut after %zu writes, %s: %llu errors stay", state->cut, state->which,
                 (unsigned long long)report.after.errors);
    ASSERT_OK(qcow_header_read(file, &header));
    assert_string_equal(header.backing_name, BACKING_NAME);
    assert_string_equal(header.backing_format, "raw");
    ASSERT_OK(qcow_bitmap_set_load(file, &header, &set));
    for (uint64_t i = 0; i < SECTORS; i++)
        sectors[i] = sector_at(state->bytes, state->len, i);
    for (uint32_t i = 0; i < set.count; i++)
        judge_bitmap(run, &set.list[i], sectors, state);
    qcow_bitmap_set_finish(&set);
    host_file_destroy(file);
    states_checked++;
}

static void cut_power(const struct qcow_create_options *options)
{
    struct run *run = calloc(1, sizeof(*run));
    struct host_file *file = NULL;

    assert_non_null(run);
    run->base.judge = judge_state;
    run->options = options;
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, (void **)&run->start, &run->start_len);
    ASSERT_OK(qcow_create(file, options));
    host_file_destroy(file);
    run->image = malloc(run->start_len);
    assert_non_null(run->image);
    memcpy(run->image, run->start, run->start_len);
    run->image_len = run->start_len;
    for (unsigned round = 0; round < ROUNDS; round++)
        do_round(run, round);
    cut_states_visit(
        &(struct cut_source){
            .start = run->start,
            .start_len = run->start_len,
            .log = &run->log,
            .subsets = (unsigned)chance_setting("FERRY_TEST_STATES", 3),
            .chance = &chance,
        },
        &run->base);
    record_log_finish(&run->log);
    free(run->start);
    free(run->image);
    free(run);
}

TEST(a_bitmap_never_says_less_than_is_true)
{
    static const unsigned cluster_bits[] = {9, 12, 16};

    for (size_t i = 0; i < ARRAY_COUNT(cluster_bits); i++)
        cut_power(&(struct qcow_create_options){.virtual_bytes = DISK_BYTES,
                                                .version = 3,
                                                .cluster_bits = cluster_bits[i],
                                                .backing_name = BACKING_NAME,
                                                .backing_format = "raw"});
    print_message("%llu states checked, in %llu the bitmap claims to be reliable\n",
                  (unsigned long long)states_checked, (unsigned long long)reliable_seen);
    assert_true(reliable_seen > 100);
    assert_true(planned_writes > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_bitmap_never_says_less_than_is_true)};

    chance = chance_of(chance_setting("FERRY_TEST_SEED", 13));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
