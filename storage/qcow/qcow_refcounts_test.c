/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/unit_test.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_refcount_width.h"
#include "storage/qcow/qcow_refcounts.h"
#include "storage/qcow/qcow_write_list.h"
#include "storage/testing/host_file_fake.h"

TEST(counts_of_every_width_keep_to_themselves)
{
    for (unsigned order = 0; order <= 6; order++) {
        uint8_t block[64];
        uint64_t count = sizeof(block) * 8 >> order;
        uint64_t most = order == 6 ? UINT64_MAX : ((uint64_t)1 << (1u << order)) - 1;
        for (uint64_t index = 0; index < count; index++) {
            memset(block, 0, sizeof(block));
            qcow_refcount_width_set(block, index, order, most);
            for (uint64_t other = 0; other < count; other++)
                assert_int_equal(qcow_refcount_width_get(block, other, order),
                                 other == index ? most : 0);
            qcow_refcount_width_set(block, index, order, 0);
            assert_int_equal(qcow_refcount_width_get(block, index, order), 0);
        }
    }
}

/* The format packs narrow counts from the low bits, and writes wide ones big endian. */
TEST(counts_lie_where_the_format_says)
{
    uint8_t block[8] = {0};

    qcow_refcount_width_set(block, 1, 1, 3);
    assert_int_equal(block[0], 0x0c);
    qcow_refcount_width_set(block, 1, 4, 0x1234);
    assert_int_equal(block[2], 0x12);
    assert_int_equal(block[3], 0x34);
}

static void load(struct host_file **out_file, struct qcow_refcounts *refcounts)
{
    struct qcow_header header;

    ASSERT_OK(host_file_fake_create(NULL, 0, out_file));
    ASSERT_OK(qcow_create(
        *out_file,
        &(struct qcow_create_options){.virtual_bytes = 1 << 20, .version = 3, .cluster_bits = 9}));
    ASSERT_OK(qcow_header_read(*out_file, &header));
    ASSERT_OK(qcow_refcounts_load(refcounts, *out_file, &header));
}

TEST(changed_counts_are_written_until_they_are_durable)
{
    struct host_file *file;
    struct qcow_refcounts refcounts;
    struct qcow_write_list list = {.count = 0};
    uint64_t count = 0;

    load(&file, &refcounts);
    ASSERT_OK(qcow_refcounts_set(&refcounts, 100, 7));
    ASSERT_OK(qcow_refcounts_capture(&refcounts, &list));
    qcow_write_list_finish(&list);
    qcow_refcounts_settle(&refcounts, false);
    assert_non_null(refcounts.changed);

    ASSERT_OK(qcow_refcounts_capture(&refcounts, &list));
    ASSERT_OK(qcow_write_list_submit(&list, file));
    qcow_write_list_finish(&list);
    qcow_refcounts_settle(&refcounts, true);
    assert_null(refcounts.changed);
    qcow_refcounts_finish(&refcounts);

    struct qcow_header header;
    ASSERT_OK(qcow_header_read(file, &header));
    ASSERT_OK(qcow_refcounts_load(&refcounts, file, &header));
    ASSERT_OK(qcow_refcounts_get(&refcounts, 100, &count));
    assert_int_equal(count, 7);
    qcow_refcounts_finish(&refcounts);
    host_file_destroy(file);
}

TEST(blocks_in_memory_are_bounded_and_changed_ones_stay)
{
    struct host_file *file;
    struct qcow_refcounts refcounts;
    struct qcow_write_list list = {.count = 0};
    struct qcow_header header = {.cluster_bits = 21, .refcount_order = 4};
    enum { BLOCKS = 12, MOST = 4 };
    const uint64_t per_block = 1u << 20;
    uint8_t *image = calloc(BLOCKS + 1, 2u << 20);
    uint64_t count = 0;

    assert_non_null(image);
    header.refcount_table_offset = 0;
    header.refcount_table_clusters = 1;
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint64_t offset = (uint64_t)(i + 1) << 21;
        for (unsigned byte = 0; byte < 8; byte++)
            image[i * 8 + byte] = (uint8_t)(offset >> (56 - 8 * byte));
        image[offset + 1] = (uint8_t)(i + 1);
    }
    ASSERT_OK(host_file_fake_create(image, (size_t)(BLOCKS + 1) << 21, &file));
    ASSERT_OK(qcow_refcounts_load(&refcounts, file, &header));

    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < BLOCKS; i++) {
            ASSERT_OK(qcow_refcounts_get(&refcounts, i * per_block, &count));
            assert_int_equal(count, i + 1);
            assert_true(refcounts.block_count <= MOST);
        }
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_int_equal(qcow_refcounts_wants_flush(&refcounts), i > MOST);
        ASSERT_OK(qcow_refcounts_set(&refcounts, i * per_block, 100 + i));
    }
    assert_int_equal(refcounts.changed_count, BLOCKS);
    ASSERT_OK(qcow_refcounts_capture(&refcounts, &list));
    for (unsigned i = 0; i < BLOCKS; i++) {
        ASSERT_OK(qcow_refcounts_get(&refcounts, i * per_block, &count));
        assert_int_equal(count, 100 + i);
    }
    ASSERT_OK(qcow_write_list_submit(&list, file));
    qcow_write_list_finish(&list);
    qcow_refcounts_settle(&refcounts, true);

    assert_int_equal(refcounts.changed_count, 0);
    assert_true(refcounts.block_count <= MOST);
    assert_false(qcow_refcounts_wants_flush(&refcounts));
    for (unsigned i = 0; i < BLOCKS; i++) {
        ASSERT_OK(qcow_refcounts_get(&refcounts, i * per_block, &count));
        assert_int_equal(count, 100 + i);
    }
    qcow_refcounts_finish(&refcounts);
    host_file_destroy(file);
    free(image);
}

TEST(a_new_block_describes_itself_and_a_larger_table_keeps_the_rest)
{
    struct host_file *file;
    struct qcow_refcounts refcounts;
    uint64_t used = 0, count = 0, far;

    load(&file, &refcounts);
    uint64_t per_block = (uint64_t)1 << refcounts.per_block_bits;
    assert_false(qcow_refcounts_covers(&refcounts, per_block));
    ASSERT_OK(qcow_refcounts_cover(&refcounts, per_block, &used));
    assert_int_equal(used, 1);
    ASSERT_OK(qcow_refcounts_get(&refcounts, per_block, &count));
    assert_int_equal(count, 1);

    far = refcounts.table_entries << refcounts.per_block_bits;
    ASSERT_OK(qcow_refcounts_cover(&refcounts, far, &used));
    assert_true(used >= 3);
    for (uint64_t i = 0; i < used; i++) {
        ASSERT_OK(qcow_refcounts_get(&refcounts, far + i, &count));
        assert_int_equal(count, 1);
    }
    ASSERT_OK(qcow_refcounts_get(&refcounts, far + used, &count));
    assert_int_equal(count, 0);
    ASSERT_OK(qcow_refcounts_get(&refcounts, per_block, &count));
    assert_int_equal(count, 1);
    ASSERT_OK(qcow_refcounts_get(&refcounts, 1, &count));
    assert_int_equal(count, 0); /* the old table's cluster */
    qcow_refcounts_finish(&refcounts);
    host_file_destroy(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_every_width_keep_to_themselves),
        cmocka_unit_test(counts_lie_where_the_format_says),
        cmocka_unit_test(changed_counts_are_written_until_they_are_durable),
        cmocka_unit_test(blocks_in_memory_are_bounded_and_changed_ones_stay),
        cmocka_unit_test(a_new_block_describes_itself_and_a_larger_table_keeps_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
