/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_resize_cut_test.c - a disk grows and shrinks, and the power goes.
 *
 * A disk full of stamps is given one size after the other, on a recorded file. In each state that a
 * cut can leave (cut_states.h) the disk has the old size with the old content, or the new one: the
 * same as far as both reach, then zeros, whatever lies behind the old end in the last cluster or in
 * a longer backing file. A snapshot in the image holds what it was taken of.
 *
 * FERRY_TEST_SEED and FERRY_TEST_STATES are those of qcow_power_cut_test.c.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/io_vector.h"
#include "storage/qcow/qcow_bitmap.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_resize.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/cut_repair.h"
#include "storage/testing/cut_states.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define BYTES_MAX     (1 * MIB)
#define SNAPSHOT_NAME "before"
#define BITMAP_NAME   "since"
#define BITMAP_BITS   12u

/* The first is what the disk is made with. */
static const uint64_t sizes[] = {300 * KIB - 512, 500 * KIB + 1024, 100 * KIB + 512, 900 * KIB,
                                 64 * KIB,        64 * KIB + 512,   512 * KIB,       0};

struct shape {
    const char *name;
    unsigned version, cluster_bits;
    bool has_extended_l2, has_backing, has_snapshot, has_bitmap;
};

struct run {
    struct cut_judge base;
    const struct shape *shape;
    struct record_log log;
    uint8_t *start; /* owned */
    size_t start_len;
    uint8_t *contents[ARRAY_COUNT(sizes)]; /* owned; of each size */
    size_t ends[ARRAY_COUNT(sizes)];       /* how many records there were when it was reached */
};

static struct chance chance;
static uint64_t states_checked, bitmaps_seen;

/* A disk with bitmaps has at least a sector. */
static uint64_t size_at(const struct shape *shape, size_t step)
{
    return shape->has_bitmap ? MAX(sizes[step], SECTOR_BYTES) : sizes[step];
}

static void stamp_all(uint8_t *data, size_t len, uint64_t first)
{
    for (size_t at = 0; at < len; at += SECTOR_BYTES)
        stamp_sector(data + at, first + at);
}

/* Opens an image, with a backing file that is longer than any of the sizes. */
static struct block *open_image(const struct shape *shape, struct host_file *file,
                                bool is_read_only)
{
    struct block *disk = NULL, *backing = NULL;

    ASSERT_OK(qcow_image_open(file, is_read_only, &disk));
    if (!shape->has_backing)
        return disk;
    ASSERT_OK(block_memory_create(BYTES_MAX, &backing));
    stamp_all(block_memory_bytes(backing), BYTES_MAX, 1);
    qcow_image_set_backing(disk, backing);
    return disk;
}

static struct host_file *file_of(const void *bytes, size_t len)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(bytes, len, &file));
    return file;
}

static uint8_t *read_all(struct block *disk)
{
    uint8_t *data = calloc(1, BYTES_MAX);
    struct iovec iov = {data, disk->virtual_bytes};

    assert_non_null(data);
    if (disk->virtual_bytes > 0)
        ASSERT_OK(block_read(disk, &iov, 1, 0));
    return data;
}

static void make_image(struct run *run)
{
    const struct shape *shape = run->shape;
    struct host_file *file = file_of(NULL, 0);
    struct qcow_create_options options = {
        .virtual_bytes = sizes[0],
        .version = shape->version,
        .cluster_bits = shape->cluster_bits,
        .has_extended_l2 = shape->has_extended_l2,
        .backing_name = shape->has_backing ? "base" : NULL,
        .backing_format = shape->has_backing ? "raw" : NULL,
    };

    host_file_fake_keep(file, (void **)&run->start, &run->start_len);
    ASSERT_OK(qcow_create(file, &options));
    struct block *disk = open_image(shape, file, false);
    uint8_t *data = read_all(disk);
    /* Where there is a backing file, half of the disk stays in it. */
    size_t from = shape->has_backing ? align_up(sizes[0] / 2, SECTOR_BYTES) : 0;
    struct iovec iov = {data + from, sizes[0] - from};
    stamp_all(data + from, sizes[0] - from, UINT64_MAX / 2);
    ASSERT_OK(block_write(disk, &iov, 1, from));
    run->contents[0] = data;
    ASSERT_OK(block_close(disk));
    if (!shape->has_snapshot && !shape->has_bitmap)
        return;
    uint8_t *before = run->start;
    file = file_of(before, run->start_len);
    host_file_fake_keep(file, (void **)&run->start, &run->start_len);
    if (shape->has_snapshot)
        ASSERT_OK(qcow_snapshot_create(file, SNAPSHOT_NAME, 0));
    if (shape->has_bitmap)
        ASSERT_OK(qcow_bitmap_add(file, BITMAP_NAME, BITMAP_BITS, true));
    host_file_destroy(file);
    free(before);
}

static void resize_again_and_again(struct run *run)
{
    struct host_file *recorder = NULL;

    ASSERT_OK(host_file_recorder_create(file_of(run->start, run->start_len), &run->log, &recorder));
    struct block *disk = open_image(run->shape, recorder, false);
    for (size_t i = 1; i < ARRAY_COUNT(sizes); i++) {
        ASSERT_OK(qcow_image_resize(disk, size_at(run->shape, i)));
        run->ends[i] = run->log.count;
        run->contents[i] = calloc(1, BYTES_MAX);
        assert_non_null(run->contents[i]);
        memcpy(run->contents[i], run->contents[i - 1],
               MIN(size_at(run->shape, i), size_at(run->shape, i - 1)));
    }
    ASSERT_OK(block_close(disk));
}

/* A size may be there from the first record of its change on, until the next one is complete. */
static bool may_be(const struct run *run, size_t step, size_t cut)
{
    return (step == 0 || cut > run->ends[step - 1]) &&
           (step + 1 == ARRAY_COUNT(sizes) || cut < run->ends[step + 1]);
}

static void judge_content(const struct run *run, const struct cut_state *state,
                          const uint8_t *bytes, size_t len)
{
    struct block *disk = open_image(run->shape, file_of(bytes, len), true);
    uint8_t *data = read_all(disk);
    bool is_known = false;

    for (size_t i = 0; i < ARRAY_COUNT(sizes) && !is_known; i++)
        is_known = disk->virtual_bytes == size_at(run->shape, i) && may_be(run, i, state->cut) &&
                   memcmp(data, run->contents[i], size_at(run->shape, i)) == 0;
    if (!is_known)
        fail_msg("%s: cut after %zu writes, %s: %llu bytes, or their content, are not those before "
                 "or after",
                 run->shape->name, state->cut, state->which,
                 (unsigned long long)disk->virtual_bytes);
    free(data);
    ASSERT_OK(block_close(disk));
}

/* What was cut off does not come to light again. */
static void grow_again(const struct run *run, const struct cut_state *state, const uint8_t *bytes,
                       size_t len)
{
    struct block *disk = open_image(run->shape, file_of(bytes, len), false);
    uint64_t before = disk->virtual_bytes;
    uint8_t *data = read_all(disk);

    ASSERT_OK(qcow_image_resize(disk, BYTES_MAX));
    uint8_t *grown = read_all(disk);
    struct iovec added = {grown + before, BYTES_MAX - before};
    if (memcmp(grown, data, before) != 0 || !io_vector_is_zero(&added, 1))
        fail_msg("%s: cut after %zu writes, %s, made larger again: not what was, and zeros",
                 run->shape->name, state->cut, state->which);
    free(data);
    free(grown);
    ASSERT_OK(block_close(disk));
}

static void judge_snapshot(const struct run *run, const uint8_t *bytes, size_t len)
{
    struct block *disk = open_image(run->shape, file_of(bytes, len), true);

    ASSERT_OK(qcow_image_show_snapshot(disk, SNAPSHOT_NAME));
    assert_int_equal(disk->virtual_bytes, sizes[0]);
    uint8_t *data = read_all(disk);
    assert_memory_equal(data, run->contents[0], sizes[0]);
    free(data);
    ASSERT_OK(block_close(disk));
}

/* A bitmap may be gone or not reliable. If it is there, it says at least what has changed. */
static void judge_bitmap(const struct run *run, const struct cut_state *state, const uint8_t *bytes,
                         size_t len)
{
    struct host_file *file = file_of(bytes, len);
    struct block *disk = open_image(run->shape, file_of(bytes, len), true);
    uint8_t *data = read_all(disk);
    struct qcow_bitmap_set set;

    ASSERT_OK(qcow_bitmap_list(file, &set));
    const struct qcow_bitmap *bitmap = qcow_bitmap_find(&set, BITMAP_NAME);
    bool is_usable = bitmap != NULL && bitmap->bits != NULL;
    for (uint64_t at = 0; is_usable && at < disk->virtual_bytes; at += SECTOR_BYTES) {
        bool has_changed =
            at >= sizes[0] || memcmp(data + at, run->contents[0] + at, SECTOR_BYTES) != 0;
        uint64_t bit = at >> BITMAP_BITS;
        if (has_changed && (bitmap->bits[bit / 8] >> bit % 8 & 1) == 0)
            fail_msg("%s: cut after %zu writes, %s: the bitmap does not show a change at %llu",
                     run->shape->name, state->cut, state->which, (unsigned long long)at);
    }
    bitmaps_seen += is_usable;
    qcow_bitmap_set_finish(&set);
    free(data);
    ASSERT_OK(block_close(disk));
    host_file_destroy(file);
}

static void judge_state(struct cut_judge *judge, const struct cut_state *state)
{
    struct run *run = CONTAINER_OF(judge, struct run, base);
    struct qcow_verdict verdict = qcow_checker_run(state->bytes, state->len);
    size_t len = 0;

    if (verdict.is_refused || verdict.hazards > 0 ||
        (verdict.errors > 0 && run->shape->version >= 3 && !verdict.is_dirty))
        fail_msg("%s: cut after %zu writes, %s: %s", run->shape->name, state->cut, state->which,
                 verdict.first);
    uint8_t *repaired = cut_repair(state, &len);
    judge_content(run, state, repaired, len);
    if (run->shape->has_snapshot)
        judge_snapshot(run, repaired, len);
    if (run->shape->has_bitmap)
        judge_bitmap(run, state, repaired, len);
    grow_again(run, state, repaired, len);
    free(repaired);
    states_checked++;
}

TEST(a_disk_of_another_size_survives_every_cut)
{
    static const struct shape shapes[] = {
        {.name = "version 3", 3, 12},
        {.name = "version 2", 2, 12},
        {.name = "small clusters", 3, 9},
        {.name = "backing file", 3, 12, .has_backing = true},
        {.name = "subclusters", 3, 14, .has_extended_l2 = true, .has_backing = true},
        {.name = "snapshot", 3, 12, .has_snapshot = true},
        {.name = "large clusters", 3, 16, .has_backing = true, .has_snapshot = true},
        {.name = "snapshot, small clusters", 3, 9, .has_snapshot = true},
        {.name = "bitmap", 3, 12, .has_bitmap = true},
        {.name = "bitmap and snapshot", 3, 9, .has_snapshot = true, .has_bitmap = true},
    };

    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++) {
        struct run run = {.base = {judge_state}, .shape = &shapes[i]};
        make_image(&run);
        resize_again_and_again(&run);
        cut_states_visit(
            &(struct cut_source){
                .start = run.start,
                .start_len = run.start_len,
                .log = &run.log,
                .subsets = (unsigned)chance_setting("FERRY_TEST_STATES", 4),
                .chance = &chance,
            },
            &run.base);
        record_log_finish(&run.log);
        free(run.start);
        for (size_t j = 0; j < ARRAY_COUNT(sizes); j++)
            free(run.contents[j]);
    }
    assert_true(states_checked > 500);
    assert_true(bitmaps_seen > 50);
    print_message("%llu states checked\n", (unsigned long long)states_checked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_of_another_size_survives_every_cut),
    };

    chance = chance_of(chance_setting("FERRY_TEST_SEED", 11));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
