/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_l2_entry.h"

static const struct qcow_entry_context version_3 = {3, 16, 16, true};
static const struct qcow_entry_context version_3_alone = {3, 16, 16, false};
static const struct qcow_entry_context version_2 = {2, 16, 16, true};
static const struct qcow_entry_context version_2_alone = {2, 16, 16, false};
static const struct qcow_entry_context extended = {3, 16, 11, true};
static const struct qcow_entry_context extended_alone = {3, 16, 11, false};

#define HOST 0x50000u
#define ALL  UINT32_MAX

static void assert_same(const struct qcow_cluster *a, const struct qcow_cluster *b)
{
    assert_int_equal(a->host_offset, b->host_offset);
    assert_int_equal(a->is_copied, b->is_copied);
    assert_int_equal(a->is_compressed, b->is_compressed);
    assert_int_equal(a->compressed_bytes, b->compressed_bytes);
    assert_int_equal(a->data, b->data);
    assert_int_equal(a->zero, b->zero);
}

TEST(each_kind_of_entry_is_told_apart_and_written_back)
{
    static const struct {
        const struct qcow_entry_context *context;
        struct qcow_entry entry;
        struct qcow_cluster cluster;
    } rows[] = {
        {&version_3, {0, 0}, {0, false, false, 0, 0, 0}},
        {&version_3, {QCOW_ENTRY_ZERO, 0}, {0, false, false, 0, 0, 1}},
        {&version_3, {HOST | QCOW_ENTRY_ZERO, 0}, {HOST, false, false, 0, 0, 1}},
        {&version_3, {HOST | QCOW_ENTRY_ZERO | QCOW_ENTRY_COPIED, 0}, {HOST, true, false, 0, 0, 1}},
        {&version_3, {HOST, 0}, {HOST, false, false, 0, 1, 0}},
        {&version_3, {HOST | QCOW_ENTRY_COPIED, 0}, {HOST, true, false, 0, 1, 0}},
        /* 64 KiB clusters: 54 bits of offset, then 8 of further sectors. */
        {&version_3,
         {QCOW_ENTRY_COMPRESSED | (uint64_t)2 << 54 | 0x50123, 0},
         {0x50123, false, true, 3 * 512 - 0x123, 0, 0}},
        {&extended,
         {QCOW_ENTRY_COPIED | HOST, 0x000000300000000d},
         {HOST, true, false, 0, 0xd, 0x30}},
        {&extended, {HOST, 0}, {HOST, false, false, 0, 0, 0}},
        {&extended, {0, (uint64_t)ALL << 32}, {0, false, false, 0, 0, ALL}},
        {&extended, {HOST, ALL}, {HOST, false, false, 0, ALL, 0}},
        {&extended,
         {QCOW_ENTRY_COMPRESSED | 0x50123, 0},
         {0x50123, false, true, 512 - 0x123, 0, 0}},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct qcow_cluster cluster;
        assert_true(qcow_l2_entry_decode(rows[i].entry, rows[i].context, &cluster));
        assert_same(&cluster, &rows[i].cluster);
        if (cluster.is_compressed)
            continue;
        struct qcow_entry entry = qcow_l2_entry_encode(&cluster, rows[i].context);
        assert_int_equal(entry.descriptor, rows[i].entry.descriptor);
        assert_int_equal(entry.bitmap, rows[i].entry.bitmap);
    }
}

TEST(malformed_entries_are_refused)
{
    static const struct {
        const struct qcow_entry_context *context;
        struct qcow_entry entry;
    } rows[] = {
        {&version_3, {2, 0}},
        {&version_3, {(uint64_t)1 << 56, 0}},
        {&version_3, {HOST + 512, 0}},
        {&version_3, {QCOW_ENTRY_COPIED, 0}},
        {&version_3, {QCOW_ENTRY_COMPRESSED, 0}},
        {&version_3, {QCOW_ENTRY_COMPRESSED | QCOW_ENTRY_COPIED | HOST, 0}},
        {&version_2, {QCOW_ENTRY_ZERO, 0}},
        {&extended, {HOST, 1 | (uint64_t)1 << 32}},   /* data and zeros */
        {&extended, {HOST, ALL | (uint64_t)1 << 63}}, /* in the last one */
        {&extended, {0, 1}},                          /* data nowhere */
        {&extended, {QCOW_ENTRY_ZERO, 0}},            /* the flag of standard entries */
        {&extended, {HOST | QCOW_ENTRY_ZERO, 1}},
        {&extended, {QCOW_ENTRY_COPIED, (uint64_t)1 << 32}}, /* nowhere, but its own */
        {&extended, {HOST + 2048, 1}},
        {&extended, {QCOW_ENTRY_COMPRESSED | HOST, 1}},
        {&extended, {QCOW_ENTRY_COMPRESSED | HOST, (uint64_t)1 << 32}},
    };
    struct qcow_cluster cluster;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        assert_false(qcow_l2_entry_decode(rows[i].entry, rows[i].context, &cluster));
}

TEST(runs_of_subclusters_end_where_the_kind_changes)
{
    static const struct {
        const struct qcow_entry_context *context;
        struct qcow_cluster cluster;
        unsigned first;
        enum qcow_kind kind;
        unsigned count;
    } rows[] = {
        {&version_3, {HOST, true, false, 0, 1, 0}, 0, QCOW_KIND_DATA, 1},
        {&version_3, {HOST, true, false, 0, 0, 1}, 0, QCOW_KIND_ZERO, 1},
        {&version_3, {0, false, false, 0, 0, 0}, 0, QCOW_KIND_UNALLOCATED, 1},
        {&version_3, {HOST, false, true, 512, 0, 0}, 0, QCOW_KIND_COMPRESSED, 1},
        {&extended, {HOST, true, false, 0, 0xd, 0x30}, 0, QCOW_KIND_DATA, 1},
        {&extended, {HOST, true, false, 0, 0xd, 0x30}, 1, QCOW_KIND_UNALLOCATED, 1},
        {&extended, {HOST, true, false, 0, 0xd, 0x30}, 2, QCOW_KIND_DATA, 2},
        {&extended, {HOST, true, false, 0, 0xd, 0x30}, 3, QCOW_KIND_DATA, 1},
        {&extended, {HOST, true, false, 0, 0xd, 0x30}, 4, QCOW_KIND_ZERO, 2},
        {&extended, {HOST, true, false, 0, 0xd, 0x30}, 6, QCOW_KIND_UNALLOCATED, 26},
        {&extended, {HOST, true, false, 0, ALL, 0}, 0, QCOW_KIND_DATA, 32},
        {&extended, {HOST, true, false, 0, ALL, 0}, 31, QCOW_KIND_DATA, 1},
        {&extended, {0, false, false, 0, 0, ALL}, 5, QCOW_KIND_ZERO, 27},
        {&extended, {0, false, false, 0, 0, 0}, 0, QCOW_KIND_UNALLOCATED, 32},
        {&extended, {HOST, false, true, 512, 0, 0}, 7, QCOW_KIND_COMPRESSED, 25},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        unsigned count = 0;
        assert_int_equal(
            qcow_cluster_kind(&rows[i].cluster, rows[i].context, rows[i].first, &count),
            rows[i].kind);
        assert_int_equal(count, rows[i].count);
    }
}

TEST(zeroing_is_expressed_where_entries_can)
{
    const struct qcow_cluster data = {HOST, true, false, 0, 1, 0};
    const struct qcow_cluster nothing = {0, false, false, 0, 0, 0};
    const struct qcow_cluster packed = {HOST, false, true, 512, 0, 0};
    const struct qcow_cluster mixed = {HOST, true, false, 0, 0xf, 0xf0};
    const struct {
        const struct qcow_cluster *cluster;
        const struct qcow_entry_context *context;
        uint32_t mask;
        enum qcow_zero_mode mode;
        bool is_possible;
        struct qcow_cluster zeroed;
    } rows[] = {
        {&data, &version_3, 1, QCOW_ZERO_KEEP, true, {HOST, true, false, 0, 0, 1}},
        {&data, &version_3, 1, QCOW_ZERO_UNMAP, true, {HOST, true, false, 0, 0, 1}},
        {&data, &version_3, 1, QCOW_ZERO_DISCARD, true, {HOST, true, false, 0, 0, 1}},
        {&nothing, &version_3, 1, QCOW_ZERO_UNMAP, true, {0, false, false, 0, 0, 1}},
        {&nothing, &version_3, 1, QCOW_ZERO_DISCARD, true, {0, false, false, 0, 0, 0}},
        {&nothing, &version_3_alone, 1, QCOW_ZERO_UNMAP, true, {0, false, false, 0, 0, 0}},
        {&packed, &version_3, 1, QCOW_ZERO_UNMAP, true, {0, false, false, 0, 0, 1}},
        {&data, &version_2, 1, QCOW_ZERO_UNMAP, false, {0, false, false, 0, 0, 0}},
        {&data, &version_2, 1, QCOW_ZERO_DISCARD, false, {0, false, false, 0, 0, 0}},
        {&nothing, &version_2, 1, QCOW_ZERO_UNMAP, false, {0, false, false, 0, 0, 0}},
        {&nothing, &version_2, 1, QCOW_ZERO_DISCARD, true, {0, false, false, 0, 0, 0}},
        {&data, &version_2_alone, 1, QCOW_ZERO_KEEP, false, {0, false, false, 0, 0, 0}},
        {&data, &version_2_alone, 1, QCOW_ZERO_DISCARD, true, {HOST, true, false, 0, 0, 0}},
        {&mixed, &extended, 0x3, QCOW_ZERO_KEEP, true, {HOST, true, false, 0, 0xc, 0xf3}},
        {&mixed, &extended, 0x306, QCOW_ZERO_UNMAP, true, {HOST, true, false, 0, 0x9, 0x3f6}},
        {&mixed, &extended, 0x306, QCOW_ZERO_DISCARD, true, {HOST, true, false, 0, 0x9, 0xf6}},
        {&mixed, &extended_alone, 0x306, QCOW_ZERO_UNMAP, true, {HOST, true, false, 0, 9, 0xf6}},
        {&mixed, &extended, ALL, QCOW_ZERO_UNMAP, true, {HOST, true, false, 0, 0, ALL}},
        {&packed, &extended, 0x306, QCOW_ZERO_UNMAP, false, {0, false, false, 0, 0, 0}},
        {&packed, &extended, ALL, QCOW_ZERO_DISCARD, true, {0, false, false, 0, 0, ALL}},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct qcow_cluster cluster = *rows[i].cluster;
        bool is_possible = qcow_cluster_zero(&cluster, rows[i].context, rows[i].mask, rows[i].mode);
        assert_int_equal(is_possible, rows[i].is_possible);
        assert_same(&cluster, is_possible ? &rows[i].zeroed : rows[i].cluster);
    }
}

TEST(data_replaces_zeros)
{
    struct qcow_cluster cluster = {HOST, true, false, 0, 0x1, 0xf0};

    qcow_cluster_set_data(&cluster, 0x30);
    assert_int_equal(cluster.data, 0x31);
    assert_int_equal(cluster.zero, 0xc0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_entry_is_told_apart_and_written_back),
        cmocka_unit_test(malformed_entries_are_refused),
        cmocka_unit_test(runs_of_subclusters_end_where_the_kind_changes),
        cmocka_unit_test(zeroing_is_expressed_where_entries_can),
        cmocka_unit_test(data_replaces_zeros),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
