/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unit_test.h"
#include "storage/qcow/qcow_l2_cache.h"
#include "storage/qcow/qcow_write_list.h"
#include "storage/testing/host_file_fake.h"

#define CLUSTER_BITS 9u
#define TABLE_BYTES  512u
#define TABLE_COUNT  16u

static struct qcow_slice *slice_of(struct qcow_l2_cache *cache, uint64_t table)
{
    struct qcow_slice *slice = NULL;

    ASSERT_OK(qcow_l2_cache_get(cache, table, 5, (table + 1) * TABLE_BYTES, &slice));
    return slice;
}

static void set_up(struct qcow_l2_cache *cache, struct host_file **out_file, size_t slot_limit)
{
    ASSERT_OK(host_file_fake_create(NULL, 0, out_file));
    ASSERT_OK(host_file_truncate(*out_file, (TABLE_COUNT + 1) * TABLE_BYTES));
    ASSERT_OK(qcow_l2_cache_init(cache, *out_file, CLUSTER_BITS, TABLE_COUNT));
    cache->slot_limit = slot_limit;
}

static void flush(struct qcow_l2_cache *cache, struct host_file *file, bool is_durable)
{
    struct qcow_write_list list = {NULL};

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

    set_up(&cache, &file, 4);
    struct qcow_slice *changed = slice_of(&cache, 0);
    changed->entries[5] = 77;
    qcow_l2_cache_mark_dirty(&cache, changed);
    for (uint64_t table = 1; table < TABLE_COUNT; table++)
        (void)slice_of(&cache, table);

    assert_int_equal(cache.slot_count, 4);
    assert_ptr_equal(slice_of(&cache, 0), changed);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

TEST(a_full_cache_of_changed_slices_grows_and_asks_for_a_flush)
{
    struct qcow_l2_cache cache;
    struct host_file *file;

    set_up(&cache, &file, 4);
    for (uint64_t table = 0; table < TABLE_COUNT; table++) {
        struct qcow_slice *slice = slice_of(&cache, table);
        slice->entries[5] = table + 100;
        qcow_l2_cache_mark_dirty(&cache, slice);
    }
    assert_true(qcow_l2_cache_wants_flush(&cache));
    flush(&cache, file, true);
    assert_false(qcow_l2_cache_wants_flush(&cache));
    for (uint64_t table = 0; table < TABLE_COUNT; table++)
        assert_int_equal(slice_of(&cache, table)->entries[5], table + 100);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

TEST(a_failed_flush_leaves_slices_changed)
{
    struct qcow_l2_cache cache;
    struct host_file *file;

    set_up(&cache, &file, 4);
    struct qcow_slice *slice = slice_of(&cache, 3);
    slice->entries[5] = 9;
    qcow_l2_cache_mark_dirty(&cache, slice);
    flush(&cache, file, false);
    assert_int_equal(cache.dirty_count, 1);
    flush(&cache, file, true);
    assert_int_equal(cache.dirty_count, 0);
    qcow_l2_cache_finish(&cache);

    ASSERT_OK(qcow_l2_cache_init(&cache, file, CLUSTER_BITS, TABLE_COUNT));
    assert_int_equal(slice_of(&cache, 3)->entries[5], 9);
    qcow_l2_cache_finish(&cache);
    host_file_destroy(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clean_slices_give_way_and_changed_ones_stay),
        cmocka_unit_test(a_full_cache_of_changed_slices_grows_and_asks_for_a_flush),
        cmocka_unit_test(a_failed_flush_leaves_slices_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
