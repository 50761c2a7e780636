/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/layer_index.h"

static struct layer_leaf *leaf_of(struct layer_index *index, uint64_t offset)
{
    struct layer_leaf *leaf = NULL;

    ASSERT_OK(layer_index_leaf(index, offset, &leaf));
    return leaf;
}

TEST(a_new_leaf_says_nothing)
{
    struct layer_index index;
    unsigned run = 0;

    ASSERT_OK(layer_index_init(&index, 100 * MIB, MIB));
    struct layer_leaf *leaf = leaf_of(&index, 40 * MIB);

    assert_int_equal(leaf->merged_upto, 0);
    assert_int_equal(layer_leaf_get(leaf, 0, LAYER_LEAF_UNITS, &run), 0);
    assert_int_equal(run, LAYER_LEAF_UNITS);
    assert_int_equal(layer_leaf_get(leaf, 7, 5, &run), 0);
    assert_int_equal(run, 5);
    assert_ptr_equal(leaf_of(&index, 63 * MIB), leaf);
    assert_ptr_not_equal(leaf_of(&index, 64 * MIB), leaf);
    layer_index_finish(&index);
}

TEST(what_is_set_is_told_in_runs)
{
    static uint16_t wanted[LAYER_LEAF_UNITS];
    struct layer_index index;

    srand(7);
    memset(wanted, 0, sizeof(wanted));
    ASSERT_OK(layer_index_init(&index, 32 * MIB, MIB));
    struct layer_leaf *leaf = leaf_of(&index, 0);
    for (int step = 0; step < 3000; step++) {
        unsigned first = (unsigned)rand() % LAYER_LEAF_UNITS;
        unsigned most = MIN(LAYER_LEAF_UNITS - first, step % 3 == 0 ? 200u : 40u);
        unsigned count = 1 + (unsigned)rand() % most;
        uint16_t number = (uint16_t)(rand() % 9);
        ASSERT_OK(layer_leaf_set(&index, leaf, first, count, number));
        for (unsigned i = 0; i < count; i++)
            wanted[first + i] = number;
    }

    for (unsigned unit = 0, run = 0; unit < LAYER_LEAF_UNITS; unit += run) {
        assert_int_equal(layer_leaf_get(leaf, unit, LAYER_LEAF_UNITS - unit, &run), wanted[unit]);
        for (unsigned i = 0; i < run; i++)
            assert_int_equal(wanted[unit + i], wanted[unit]);
        if (unit + run < LAYER_LEAF_UNITS)
            assert_int_not_equal(wanted[unit + run], wanted[unit]);
    }
    layer_index_finish(&index);
}

TEST(rows_are_given_back_when_clusters_become_whole)
{
    struct layer_index index;
    unsigned run;

    ASSERT_OK(layer_index_init(&index, 32 * MIB, MIB));
    struct layer_leaf *leaf = leaf_of(&index, 0);
    for (unsigned i = 0; i < LAYER_LEAF_CLUSTERS; i++)
        ASSERT_OK(layer_leaf_set(&index, leaf, i * LAYER_CLUSTER_UNITS + 3, 1, 5));
    assert_int_equal(leaf->row_count, LAYER_LEAF_CLUSTERS);
    assert_true(index.bytes <= 17 * KIB);
    ASSERT_OK(layer_leaf_set(&index, leaf, 0, 10 * LAYER_CLUSTER_UNITS, 6));

    assert_int_equal(leaf->row_count, LAYER_LEAF_CLUSTERS - 10);
    assert_int_equal(layer_leaf_get(leaf, 0, LAYER_LEAF_UNITS, &run), 6);
    assert_int_equal(run, 10 * LAYER_CLUSTER_UNITS);
    assert_int_equal(layer_leaf_get(leaf, run + 3, 2, &run), 5);
    layer_index_finish(&index);
}

TEST(memory_is_bounded_and_the_leaf_in_use_stays)
{
    struct layer_index index;

    ASSERT_OK(layer_index_init(&index, 8 * TIB, 256 * KIB));
    for (uint64_t offset = 0; offset < 2 * TIB; offset += 3 * GIB / 2 + 4096) {
        struct layer_leaf *leaf = leaf_of(&index, offset);
        assert_int_equal(leaf->merged_upto, 0); /* each is new */
        leaf->merged_upto = 1;
        ASSERT_OK(layer_leaf_set(&index, leaf, 17, 1, 3));
        assert_in_range(index.bytes, 0, 257 * KIB);
        /* The same one is found again. */
        assert_int_equal(leaf_of(&index, offset)->merged_upto, 1);
    }
    layer_index_clear(&index);
    assert_int_equal(index.bytes, 0);
    layer_index_finish(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_leaf_says_nothing),
        cmocka_unit_test(what_is_set_is_told_in_runs),
        cmocka_unit_test(rows_are_given_back_when_clusters_become_whole),
        cmocka_unit_test(memory_is_bounded_and_the_leaf_in_use_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
