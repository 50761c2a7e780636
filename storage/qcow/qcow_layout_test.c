/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_layout.h"

TEST(a_plain_image_ends_with_its_l1_table)
{
    struct qcow_geometry geometry = {
        .virtual_bytes = (uint64_t)1 << 30, .cluster_bits = 16, .refcount_order = 4};
    struct qcow_layout layout;

    assert_true(qcow_layout_of(&geometry, QCOW_REACH_L1, &layout));

    assert_int_equal(layout.l2_tables, 2);
    assert_int_equal(layout.table, 1);
    assert_int_equal(layout.blocks, 1);
    assert_int_equal(qcow_layout_l1(&layout), 3);
    assert_int_equal(qcow_layout_end(&layout), 4);
}

/* 64 GiB in clusters of 128 KiB: 76 clusters of tables for half a million of data. */
TEST(a_static_image_has_all_its_tables)
{
    struct qcow_geometry geometry = {.virtual_bytes = (uint64_t)64 << 30,
                                     .cluster_bits = 17,
                                     .refcount_order = 4,
                                     .has_extended_l2 = true};
    struct qcow_layout layout;

    assert_true(qcow_layout_of(&geometry, QCOW_REACH_L2, &layout));

    assert_int_equal(layout.l2_tables, 64);
    assert_int_equal(layout.l2, 64);
    assert_int_equal(layout.blocks, 9);
    assert_int_equal(layout.data, 0);
    assert_int_equal(qcow_layout_end(&layout), 76);
}

TEST(blocks_count_everything_that_is_there_themselves_too)
{
    for (unsigned bits = 9; bits <= 21; bits++)
        for (unsigned order = 0; order <= 6; order++)
            for (int reach = QCOW_REACH_L1; reach <= QCOW_REACH_DATA; reach++) {
                struct qcow_geometry geometry = {.virtual_bytes = 3 * (uint64_t)GIB / 32 + 512,
                                                 .cluster_bits = bits,
                                                 .refcount_order = order};
                struct qcow_layout layout;

                assert_true(qcow_layout_of(&geometry, (enum qcow_reach)reach, &layout));
                assert_true(layout.blocks * layout.block_counts >= qcow_layout_end(&layout));
                assert_true(layout.table * ((uint64_t)1 << bits) >= layout.blocks * 8);
                if (reach != QCOW_REACH_L1)
                    assert_true(layout.blocks * layout.block_counts >=
                                layout.l2 + divide_up(geometry.virtual_bytes, 1u << bits));
            }
}

TEST(a_disk_that_the_format_can_not_hold_is_refused)
{
    struct qcow_geometry geometry = {
        .virtual_bytes = (uint64_t)1 << 40, .cluster_bits = 9, .refcount_order = 4};
    struct qcow_layout layout;

    assert_false(qcow_layout_of(&geometry, QCOW_REACH_L1, &layout));

    geometry.cluster_bits = 12;
    assert_true(qcow_layout_of(&geometry, QCOW_REACH_L1, &layout));
    geometry.virtual_bytes = DISK_BYTES_MAX + 512;
    geometry.cluster_bits = 21;
    assert_false(qcow_layout_of(&geometry, QCOW_REACH_L1, &layout));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_image_ends_with_its_l1_table),
        cmocka_unit_test(a_static_image_has_all_its_tables),
        cmocka_unit_test(blocks_count_everything_that_is_there_themselves_too),
        cmocka_unit_test(a_disk_that_the_format_can_not_hold_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
