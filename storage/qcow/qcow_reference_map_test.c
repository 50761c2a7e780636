/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/unit_test.h"
#include "storage/qcow/qcow_reference_map.h"

TEST(references_add_up_wherever_the_clusters_are)
{
    struct qcow_reference_map map = {.slots = NULL};
    enum qcow_owner before = QCOW_OWNER_HEADER;

    for (uint64_t i = 0; i < 1000; i++)
        assert_true(qcow_reference_map_add(&map, i * i * 999983, (uint32_t)i + 1, QCOW_OWNER_DATA,
                                           &before));
    assert_true(qcow_reference_map_add(&map, 999983, 5, QCOW_OWNER_L2, &before));

    assert_int_equal(before, QCOW_OWNER_DATA);
    assert_int_equal(qcow_reference_map_count(&map, 999983), 7);
    assert_int_equal(qcow_reference_map_owner(&map, 999983), QCOW_OWNER_L2);
    for (uint64_t i = 2; i < 1000; i++)
        assert_int_equal(qcow_reference_map_count(&map, i * i * 999983), i + 1);
    assert_int_equal(qcow_reference_map_count(&map, 17), 0);
    assert_int_equal(qcow_reference_map_owner(&map, 17), QCOW_OWNER_NONE);
    qcow_reference_map_finish(&map);
}

TEST(a_count_stays_at_the_largest_number)
{
    struct qcow_reference_map map = {.slots = NULL};
    enum qcow_owner before;

    assert_true(qcow_reference_map_add(&map, 1, UINT32_MAX - 1, QCOW_OWNER_DATA, &before));
    assert_true(qcow_reference_map_add(&map, 1, 7, QCOW_OWNER_DATA, &before));
    assert_true(qcow_reference_map_count(&map, 1) == UINT32_MAX);
    qcow_reference_map_finish(&map);
}

TEST(chunks_come_in_order)
{
    struct qcow_reference_map map = {.slots = NULL};
    enum qcow_owner before;

    for (uint64_t i = 300; i-- > 0;)
        assert_true(qcow_reference_map_add(&map, i << QCOW_REFERENCE_CHUNK_BITS, 1, QCOW_OWNER_DATA,
                                           &before));
    const struct qcow_reference_chunk **chunks = qcow_reference_map_sorted(&map);

    assert_non_null(chunks);
    assert_int_equal(map.chunk_count, 300);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(chunks[i]->number, i);
    free((void *)chunks);
    qcow_reference_map_finish(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(references_add_up_wherever_the_clusters_are),
        cmocka_unit_test(a_count_stays_at_the_largest_number),
        cmocka_unit_test(chunks_come_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
