/* SPDX-License-Identifier: Apache-2.0 */
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_l2_budget.h"
#include "storage/qcow/qcow_l2_cache.h"
#include "storage/qcow/qcow_write_list.h"
#include "storage/testing/host_file_fake.h"

#define CLUSTER_BITS 9u
#define TABLE_BYTES  512u
#define TABLE_COUNT  400u
#define BUDGET_BYTES (96 * KIB) /* some 160 slices */

static struct qcow_slice *slice_of(struct qcow_l2_cache *cache, uint64_t table)
{
    struct qcow_slice *slice = NULL;

    ASSERT_OK(qcow_l2_cache_get(cache, table, 5, (table + 1) * TABLE_BYTES, &slice));
    return slice;
}

static const struct qcow_entry_context standard = {3, CLUSTER_BITS, CLUSTER_BITS, false};

static void set_entry(struct qcow_l2_cache *cache, struct qcow_slice *slice, uint64_t value)
{
    qcow_l2_cache_set_entry(cache, slice, 5, (struct qcow_entry){value, 0});
}

static struct qcow_l2_budget budget;
static struct lock lock; /* of the only image; nobody else asks for room */

static struct err *init(struct qcow_l2_cache *cache, struct host_file *file,
                        const struct qcow_entry_context *context, uint64_t tables)
{
    budget.bytes_max = BUDGET_BYTES;
    return qcow_l2_cache_init(cache, file, context, tables, &budget, &lock);
}

static void set_up(struct qcow_l2_cache *cache, struct host_file **out_file)
{
    ASSERT_OK(host_file_fake_create(NULL, 0, out_file));
    ASSERT_OK(host_file_truncate(*out_file, (uint64_t)(TABLE_COUNT + 1) * TABLE_BYTES));
    ASSERT_OK(init(cache, *out_file, &standard, TABLE_COUNT));
}

static void flush(struct qcow_l2_cache *cache, struct host_file *file, bool is_durable)
{
    struct qcow_write_list list = {NULL, 0};

    ASSERT_OK(qcow_l2_cache_capture(cache, &list));
    if (is_durable)
        ASSERT_OK(qcow_write_list_submit(&list, file));
    qcow_write_list_finish(&list);
    qcow_l2_cache_settle(cache, is_durable);
}

TEST(clean_slices_give_way_and_changed_ones_stay)
{
    struct qcow_l2_cache cache;
    struct host_file *file;

    set_up(&cache, &file);
    struct qcow_slice *changed = slice_of(&cache, 0);
    set_entry(&cache, changed, 77);
    for (uint64_t table = 1; table < TABLE_COUNT; table++)
        (void)slice_of(&cache, table);

    assert_int_equal(cache.slice_count, BUDGET_BYTES / cache.slice_bytes);
    assert_ptr_equal(slice_of(&cache, 0), changed);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

TEST(a_full_cache_of_changed_slices_grows_and_asks_for_a_flush)
{
    struct qcow_l2_cache cache;
    struct host_file *file;

    set_up(&cache, &file);
    for (uint64_t table = 0; table < TABLE_COUNT; table++) {
        struct qcow_slice *slice = slice_of(&cache, table);
        set_entry(&cache, slice, table + 100);
    }
    assert_int_equal(cache.slice_count, TABLE_COUNT);
    assert_true(qcow_l2_cache_wants_flush(&cache));
    flush(&cache, file, true);
    assert_false(qcow_l2_cache_wants_flush(&cache));
    assert_int_equal(cache.slice_count, BUDGET_BYTES / cache.slice_bytes);
    for (uint64_t table = 0; table < TABLE_COUNT; table++)
        assert_int_equal(qcow_l2_cache_entry(&cache, slice_of(&cache, table), 5).descriptor,
                         table + 100);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

TEST(a_failed_flush_leaves_slices_changed)
{
    struct qcow_l2_cache cache;
    struct host_file *file;

    set_up(&cache, &file);
    struct qcow_slice *slice = slice_of(&cache, 3);
    set_entry(&cache, slice, 9);
    flush(&cache, file, false);
    assert_int_equal(cache.dirty_count, 1);
    flush(&cache, file, true);
    assert_int_equal(cache.dirty_count, 0);
    qcow_l2_cache_finish(&cache);

    ASSERT_OK(init(&cache, file, &standard, TABLE_COUNT));
    assert_int_equal(qcow_l2_cache_entry(&cache, slice_of(&cache, 3), 5).descriptor, 9);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

TEST(a_table_that_is_forgotten_is_read_again)
{
    struct qcow_l2_cache cache;
    struct host_file *file;

    set_up(&cache, &file);
    (void)slice_of(&cache, 2);
    (void)slice_of(&cache, 3);
    size_t used = cache.used_bytes;
    qcow_l2_cache_forget(&cache, 2);
    assert_false(qcow_l2_cache_has(&cache, 2, 5));
    assert_true(qcow_l2_cache_has(&cache, 3, 5));
    assert_int_equal(cache.used_bytes, used / 2);
    (void)slice_of(&cache, 2);
    assert_int_equal(cache.used_bytes, used);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

TEST(extended_entries_keep_both_words)
{
    const struct qcow_entry_context extended = {3, 16, 11, false};
    const struct qcow_entry entry = {QCOW_ENTRY_COPIED | 0x50000, 0x000000300000000d};
    struct qcow_l2_cache cache;
    struct host_file *file;
    struct qcow_slice *slice = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(host_file_truncate(file, 3 << 16));
    for (unsigned round = 0; round < 2; round++) {
        ASSERT_OK(init(&cache, file, &extended, 1));
        assert_int_equal(cache.slice_bits, 8);
        assert_int_equal(cache.slices_per_table, 16);
        ASSERT_OK(qcow_l2_cache_get(&cache, 0, 4095, 1 << 16, &slice));
        if (round == 0)
            qcow_l2_cache_set_entry(&cache, slice, 255, entry);
        assert_int_equal(qcow_l2_cache_entry(&cache, slice, 255).descriptor, entry.descriptor);
        assert_int_equal(qcow_l2_cache_entry(&cache, slice, 255).bitmap, entry.bitmap);
        assert_int_equal(qcow_l2_cache_entry(&cache, slice, 254).bitmap, 0);
        flush(&cache, file, true);
        qcow_l2_cache_finish(&cache);
    }
    host_file_destroy(file);
}

static int init_locks(void **state)
{
    (void)state;
    lock_init(&lock, LOCK_QCOW);
    lock_init(&budget.lock, LOCK_QCOW_TABLES);
    return 0;
}

static int finish_locks(void **state)
{
    (void)state;
    lock_finish(&lock);
    lock_finish(&budget.lock);
    return 0;
}

/* Clusters of 64 KiB: a table has 16 slices, which are a row. */
TEST(a_row_is_read_at_once_while_there_is_room_and_what_changed_stays)
{
    static const struct qcow_entry_context wide = {3, 16, 16, false};
    struct qcow_slice *slices[16];
    struct qcow_l2_cache cache;
    struct host_file *file;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(host_file_truncate(file, 4 * 65536));
    budget.bytes_max = 48 * 4096; /* a row is less than half of it, and then it is more */
    ASSERT_OK(qcow_l2_cache_init(&cache, file, &wide, 2, &budget, &lock));
    uint64_t reads = host_file_fake_reads(file);
    ASSERT_OK(qcow_l2_cache_get(&cache, 0, 3 * 512 + 5, 65536, &slices[3]));
    assert_int_equal(host_file_fake_reads(file), reads + 1);
    assert_int_equal(cache.slice_count, 16);
    set_entry(&cache, slices[3], 77);
    for (uint64_t i = 0; i < 16; i++)
        ASSERT_OK(qcow_l2_cache_get(&cache, 0, i * 512, 65536, &slices[i]));
    assert_int_equal(host_file_fake_reads(file), reads + 1);
    assert_int_equal(qcow_l2_cache_entry(&cache, slices[3], 5).descriptor, 77);

    ASSERT_OK(qcow_l2_cache_get(&cache, 1, 0, 2 * 65536, &slices[0]));
    assert_int_equal(cache.slice_count, 17);
    assert_false(qcow_l2_cache_has(&cache, 1, 512));
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

/* All of a row but the changed slice has gone and is read again. */
TEST(a_row_that_is_read_again_does_not_take_the_place_of_what_changed)
{
    static const struct qcow_entry_context wide = {3, 16, 16, false};
    struct qcow_slice *changed, *other;
    struct qcow_l2_cache cache;
    struct host_file *file;
    size_t steps = 64;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(host_file_truncate(file, 4 * 65536));
    budget.bytes_max = MIB;
    ASSERT_OK(qcow_l2_cache_init(&cache, file, &wide, 2, &budget, &lock));
    ASSERT_OK(qcow_l2_cache_get(&cache, 1, 0, 2 * 65536, &other)); /* what the cache keeps */
    ASSERT_OK(qcow_l2_cache_get(&cache, 0, 5, 65536, &changed));
    set_entry(&cache, changed, 77);
    qcow_l2_budget_give(&cache, qcow_l2_cache_drop(&cache, QCOW_L2_DROP_CLEAN, 64, &steps));
    assert_true(cache.slice_count < 32);

    for (uint64_t i = 0; i < 16; i++)
        ASSERT_OK(qcow_l2_cache_get(&cache, 0, i * 512, 65536, &other));
    ASSERT_OK(qcow_l2_cache_get(&cache, 0, 5, 65536, &other));
    assert_ptr_equal(other, changed);
    assert_int_equal(qcow_l2_cache_entry(&cache, other, 5).descriptor, 77);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_read_at_once_while_there_is_room_and_what_changed_stays),
        cmocka_unit_test(a_row_that_is_read_again_does_not_take_the_place_of_what_changed),
        cmocka_unit_test(clean_slices_give_way_and_changed_ones_stay),
        cmocka_unit_test(a_full_cache_of_changed_slices_grows_and_asks_for_a_flush),
        cmocka_unit_test(a_failed_flush_leaves_slices_changed),
        cmocka_unit_test(a_table_that_is_forgotten_is_read_again),
        cmocka_unit_test(extended_entries_keep_both_words),
    };

    return cmocka_run_group_tests(tests, init_locks, finish_locks);
}
