/* SPDX-License-Identifier: Apache-2.0 */
/* qcow_l2_budget_test.c - many images, and memory for the tables of some. */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_l2_budget.h"
#include "storage/qcow/qcow_l2_cache.h"
#include "storage/qcow/qcow_write_list.h"
#include "storage/testing/chance.h"
#include "storage/testing/host_file_fake.h"

#define CLUSTER_BITS 12u
#define TABLE_BYTES  4096u /* one slice */
#define TABLES       640u  /* 2.6 MiB an image */
#define BUDGET_BYTES (2 * MIB)
#define IMAGES       8u

struct image {
    struct lock lock;
    struct host_file *file;
    struct qcow_l2_cache cache;
    uint64_t model[TABLES]; /* what entry 5 of each table says */
};

static struct image images[IMAGES];
static struct qcow_l2_budget budget;

static void set_up(void)
{
    static const struct qcow_entry_context standard = {3, CLUSTER_BITS, CLUSTER_BITS, false};

    memset(&budget, 0, sizeof(budget));
    budget.bytes_max = BUDGET_BYTES;
    lock_init(&budget.lock, LOCK_QCOW_TABLES);
    for (unsigned i = 0; i < IMAGES; i++) {
        struct image *image = &images[i];
        memset(image, 0, sizeof(*image));
        lock_init(&image->lock, LOCK_QCOW);
        ASSERT_OK(host_file_fake_create(NULL, 0, &image->file));
        ASSERT_OK(host_file_truncate(image->file, (uint64_t)(TABLES + 1) * TABLE_BYTES));
        ASSERT_OK(qcow_l2_cache_init(&image->cache, image->file, &standard, TABLES, &budget,
                                     &image->lock));
    }
}

static size_t used(void)
{
    lock_acquire(&budget.lock);
    size_t bytes = budget.used_bytes;
    lock_release(&budget.lock);
    return bytes;
}

static void tear_down(void)
{
    for (unsigned i = 0; i < IMAGES; i++) {
        qcow_l2_cache_finish(&images[i].cache);
        host_file_destroy(images[i].file);
        lock_finish(&images[i].lock);
    }
    assert_int_equal(used(), 0);
    assert_int_equal(atomic_load(&budget.changed_bytes), 0);
    lock_finish(&budget.lock);
}

static void check_bound(void)
{
    size_t changed = atomic_load(&budget.changed_bytes), sum = 0;

    for (unsigned i = 0; i < IMAGES; i++)
        sum += images[i].cache.slice_count * images[i].cache.slice_bytes;
    assert_int_equal(sum, used());
    assert_true(sum - changed <= BUDGET_BYTES + IMAGES * DISK_TABLES_BYTES_MIN);
    assert_true(changed <= BUDGET_BYTES / 2 + IMAGES * DISK_TABLES_BYTES_MIN / 2);
}

/* Tried, as a test may have another image's. */
static void take_lock(struct image *image) ACQUIRES(&image->lock) LOCK_UNCHECKED
{
    assert_true(lock_try_acquire(&image->lock));
}

/* Looks at a table, under the image's lock, as whoever looks things up does. */
static struct qcow_slice *look(struct image *image, uint64_t table)
{
    struct qcow_slice *slice = NULL;

    take_lock(image);
    ASSERT_OK(qcow_l2_cache_get(&image->cache, table, 5, (table + 1) * TABLE_BYTES, &slice));
    assert_int_equal(qcow_l2_cache_entry(&image->cache, slice, 5).descriptor, image->model[table]);
    lock_release(&image->lock);
    return slice;
}

static void change(struct image *image, uint64_t table, uint64_t value)
{
    qcow_l2_cache_set_entry(&image->cache, look(image, table), 5, (struct qcow_entry){value, 0});
    image->model[table] = value;
}

static void flush(struct image *image, bool is_durable)
{
    struct qcow_write_list list = {NULL, 0};

    ASSERT_OK(qcow_l2_cache_capture(&image->cache, &list));
    if (is_durable)
        ASSERT_OK(qcow_write_list_submit(&list, image->file));
    qcow_write_list_finish(&list);
    qcow_l2_cache_settle(&image->cache, is_durable);
}

TEST(the_bound_holds_while_many_images_are_read_changed_and_flushed)
{
    struct chance chance = chance_of(7);
    size_t flushes = 0;

    set_up();
    for (unsigned round = 0; round < 20000; round++) {
        struct image *image = &images[chance_below(&chance, IMAGES)];
        uint64_t table = chance_below(&chance, TABLES);
        if (chance_below(&chance, 3) == 0)
            change(image, table, round + 1);
        else
            (void)look(image, table);
        if (qcow_l2_cache_wants_flush(&image->cache)) {
            flush(image, chance_below(&chance, 10) != 0);
            flushes++;
        }
        check_bound();
    }
    assert_true(flushes > 10);
    assert_true(used() > BUDGET_BYTES - 2 * (uint64_t)TABLE_BYTES);
    tear_down();
}

TEST(a_busy_image_gets_what_idle_ones_have_but_for_the_minimum)
{
    set_up();
    for (unsigned i = 0; i < IMAGES; i++)
        for (uint64_t table = 0; table < TABLES; table++)
            (void)look(&images[i], table);
    for (unsigned busy = 0; busy < 2; busy++) {
        for (unsigned round = 0; round < 4; round++)
            for (uint64_t table = 0; table < TABLES; table++)
                (void)look(&images[busy], table);
        check_bound();
        for (unsigned i = 0; i < IMAGES; i++)
            if (i != busy)
                assert_true(images[i].cache.used_bytes <= DISK_TABLES_BYTES_MIN);
        assert_true(images[busy].cache.used_bytes > BUDGET_BYTES - IMAGES * DISK_TABLES_BYTES_MIN);
    }
    tear_down();
}

TEST(what_fits_stays_while_another_image_is_read_from_end_to_end)
{
    const uint64_t working_set = 100;
    uint64_t loads = 0, looks = 0;

    set_up();
    for (unsigned round = 0; round < 20; round++)
        for (uint64_t table = 0; table < TABLES; table++) {
            (void)look(&images[1], table);
            lock_acquire(&images[0].lock);
            loads += !qcow_l2_cache_has(&images[0].cache, looks % working_set, 5);
            lock_release(&images[0].lock);
            (void)look(&images[0], looks++ % working_set);
        }
    check_bound();
    assert_true(loads <= 4 * working_set); /* of 12800 looks */
    tear_down();
}

TEST(an_image_whose_lock_is_taken_is_passed_by)
{
    set_up();
    for (uint64_t table = 0; table < TABLES; table++)
        (void)look(&images[0], table);
    size_t before = images[0].cache.used_bytes;

    take_lock(&images[0]);
    for (uint64_t table = 0; table < 100; table++)
        (void)look(&images[1], table);
    lock_release(&images[0].lock);
    assert_int_equal(images[0].cache.used_bytes, before);
    assert_true(images[1].cache.used_bytes <= DISK_TABLES_BYTES_MIN + 2 * (uint64_t)TABLE_BYTES);
    check_bound();

    for (uint64_t table = 0; table < 100; table++)
        (void)look(&images[1], table);
    assert_int_equal(images[1].cache.slice_count, 100);
    check_bound();
    tear_down();
}

TEST(whoever_changes_things_is_to_flush_when_all_together_changed_too_much)
{
    set_up();
    uint64_t changes = 0;
    while (!qcow_l2_cache_wants_flush(&images[0].cache))
        change(&images[0], changes++, 9);
    assert_true(changes * images[0].cache.slice_bytes > BUDGET_BYTES / 2);
    change(&images[1], 0, 9);
    assert_false(qcow_l2_cache_wants_flush(&images[1].cache)); /* it would not help */
    for (uint64_t table = 1; table < 16; table++)
        change(&images[1], table, 9);
    assert_true(qcow_l2_cache_wants_flush(&images[1].cache));

    flush(&images[0], true);
    assert_false(qcow_l2_cache_wants_flush(&images[1].cache));
    check_bound();
    tear_down();
}

TEST(an_image_that_is_closed_gives_all_back)
{
    set_up();
    for (unsigned i = 0; i < IMAGES; i++)
        for (uint64_t table = 0; table < TABLES; table++)
            (void)look(&images[i], table);
    change(&images[3], 3, 3);
    qcow_l2_cache_finish(&images[3].cache);
    memset(&images[3].cache, 0, sizeof(images[3].cache));
    check_bound();
    for (uint64_t table = 0; table < TABLES; table++)
        (void)look(&images[4], table);
    assert_true(used() > BUDGET_BYTES - 2 * (uint64_t)TABLE_BYTES);
    check_bound();
    tear_down();
}

/* Whole images and several threads. A thread writes sectors of its own only. */
#define DISK_BYTES   (8 * MIB) /* in clusters of 512 bytes: 256 tables */
#define SECTORS      (DISK_BYTES / 512)
#define THREADS      4u
#define DISKS        6u
#define SMALL_BUDGET (256 * KIB)

static struct block *disks[DISKS];
static uint8_t written[DISKS][SECTORS];

static struct block *make_disk(void)
{
    const struct qcow_create_options options = {
        .virtual_bytes = DISK_BYTES, .version = 3, .cluster_bits = 9};
    struct host_file *file = NULL;
    struct block *disk = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(qcow_create(file, &options));
    ASSERT_OK(qcow_image_open(file, false, &disk));
    return disk;
}

static void use_disks(void *argument)
{
    unsigned thread = *(unsigned *)argument;
    struct chance chance = chance_of(thread + 1);

    for (unsigned round = 0; round < 4000; round++) {
        uint64_t disk = chance_below(&chance, DISKS);
        uint64_t sector = chance_below(&chance, SECTORS / THREADS) * THREADS + thread;
        uint8_t data[512];
        struct iovec iov = {data, sizeof(data)};
        if (chance_below(&chance, 3) == 0) {
            written[disk][sector] = (uint8_t)(round | 1);
            memset(data, written[disk][sector], sizeof(data));
            assert_null(block_write(disks[disk], &iov, 1, sector * 512));
        } else {
            assert_null(block_read(disks[disk], &iov, 1, sector * 512));
            assert_int_equal(data[0], written[disk][sector]);
            assert_int_equal(data[511], written[disk][sector]);
        }
        if (chance_below(&chance, 200) == 0)
            assert_null(block_flush(disks[disk]));
    }
}

TEST(threads_drop_slices_of_each_others_images)
{
    struct qcow_l2_budget *shared = qcow_l2_budget_of_process();
    size_t bytes_max = shared->bytes_max;
    struct thread *threads[THREADS];
    unsigned numbers[THREADS];
    shared->bytes_max = SMALL_BUDGET;
    for (unsigned i = 0; i < DISKS; i++)
        disks[i] = make_disk();

    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        ASSERT_OK(thread_create(ROLE_TEST, i, use_disks, &numbers[i], &threads[i]));
    }
    for (unsigned i = 0; i < THREADS; i++)
        thread_join(threads[i]);

    lock_acquire(&shared->lock);
    size_t left = shared->used_bytes;
    lock_release(&shared->lock);
    size_t changed = atomic_load(&shared->changed_bytes);
    assert_true(left > SMALL_BUDGET / 2);
    assert_true(left - changed <= SMALL_BUDGET + DISKS * DISK_TABLES_BYTES_MIN);
    for (unsigned i = 0; i < DISKS; i++)
        ASSERT_OK(block_close(disks[i]));
    lock_acquire(&shared->lock);
    assert_int_equal(shared->used_bytes, 0);
    lock_release(&shared->lock);
    assert_int_equal(atomic_load(&shared->changed_bytes), 0);
    shared->bytes_max = bytes_max;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_holds_while_many_images_are_read_changed_and_flushed),
        cmocka_unit_test(a_busy_image_gets_what_idle_ones_have_but_for_the_minimum),
        cmocka_unit_test(what_fits_stays_while_another_image_is_read_from_end_to_end),
        cmocka_unit_test(an_image_whose_lock_is_taken_is_passed_by),
        cmocka_unit_test(whoever_changes_things_is_to_flush_when_all_together_changed_too_much),
        cmocka_unit_test(an_image_that_is_closed_gives_all_back),
        cmocka_unit_test(threads_drop_slices_of_each_others_images),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
