/* SPDX-License-Identifier: Apache-2.0 */
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_l2_entry.h"

static const struct qcow_entry_context version_3 = {3, 16, true};
static const struct qcow_entry_context version_3_alone = {3, 16, false};
static const struct qcow_entry_context version_2 = {2, 16, true};
static const struct qcow_entry_context version_2_alone = {2, 16, false};

#define HOST 0x50000u

TEST(each_kind_of_entry_is_told_apart)
{
    static const struct {
        uint64_t entry;
        struct qcow_cluster cluster;
    } rows[] = {
        {0, {QCOW_CLUSTER_UNALLOCATED, false, 0, 0}},
        {QCOW_ENTRY_ZERO, {QCOW_CLUSTER_ZERO, false, 0, 0}},
        {HOST | QCOW_ENTRY_ZERO, {QCOW_CLUSTER_ZERO, false, HOST, 0}},
        {HOST | QCOW_ENTRY_ZERO | QCOW_ENTRY_COPIED, {QCOW_CLUSTER_ZERO, true, HOST, 0}},
        {HOST, {QCOW_CLUSTER_DATA, false, HOST, 0}},
        {HOST | QCOW_ENTRY_COPIED, {QCOW_CLUSTER_DATA, true, HOST, 0}},
        /* 64 KiB clusters: 54 bits of offset, then 8 of further sectors. */
        {QCOW_ENTRY_COMPRESSED | (uint64_t)2 << 54 | 0x50123,
         {QCOW_CLUSTER_COMPRESSED, false, 0x50123, 3 * 512 - 0x123}},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct qcow_cluster cluster;
        assert_true(qcow_l2_entry_decode(rows[i].entry, &version_3, &cluster));
        assert_int_equal(cluster.kind, rows[i].cluster.kind);
        assert_int_equal(cluster.is_copied, rows[i].cluster.is_copied);
        assert_int_equal(cluster.host_offset, rows[i].cluster.host_offset);
        assert_int_equal(cluster.compressed_bytes, rows[i].cluster.compressed_bytes);
    }
}

TEST(malformed_entries_are_refused)
{
    static const uint64_t entries[] = {
        2,
        (uint64_t)1 << 56,
        HOST + 512,
        QCOW_ENTRY_COPIED,
        QCOW_ENTRY_COMPRESSED,
        QCOW_ENTRY_COMPRESSED | QCOW_ENTRY_COPIED | HOST,
    };
    struct qcow_cluster cluster;

    for (size_t i = 0; i < ARRAY_COUNT(entries); i++)
        assert_false(qcow_l2_entry_decode(entries[i], &version_3, &cluster));
    assert_false(qcow_l2_entry_decode(QCOW_ENTRY_ZERO, &version_2, &cluster));
}

TEST(zeroing_is_expressed_where_entries_can)
{
    const struct qcow_cluster data = {QCOW_CLUSTER_DATA, true, HOST, 0};
    const struct qcow_cluster shared = {QCOW_CLUSTER_DATA, false, HOST, 0};
    const struct qcow_cluster nothing = {.kind = QCOW_CLUSTER_UNALLOCATED};
    const struct {
        const struct qcow_cluster *cluster;
        const struct qcow_entry_context *context;
        enum qcow_zero_mode mode;
        bool is_possible;
        uint64_t entry;
    } rows[] = {
        {&data, &version_3, QCOW_ZERO_KEEP, true, HOST | QCOW_ENTRY_COPIED | QCOW_ENTRY_ZERO},
        {&data, &version_3, QCOW_ZERO_UNMAP, true, QCOW_ENTRY_ZERO},
        {&data, &version_3, QCOW_ZERO_DISCARD, true, QCOW_ENTRY_ZERO},
        {&shared, &version_3, QCOW_ZERO_KEEP, true, QCOW_ENTRY_ZERO},
        {&nothing, &version_3, QCOW_ZERO_UNMAP, true, QCOW_ENTRY_ZERO},
        {&nothing, &version_3, QCOW_ZERO_DISCARD, false, 0},
        {&nothing, &version_3_alone, QCOW_ZERO_UNMAP, true, 0},
        {&data, &version_2, QCOW_ZERO_UNMAP, false, 0},
        {&data, &version_2, QCOW_ZERO_DISCARD, false, 0},
        {&data, &version_2_alone, QCOW_ZERO_KEEP, false, 0},
        {&data, &version_2_alone, QCOW_ZERO_DISCARD, true, 0},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t entry = 0;
        bool is_possible =
            qcow_l2_entry_zeroed(rows[i].cluster, rows[i].context, rows[i].mode, &entry);
        assert_int_equal(is_possible, rows[i].is_possible);
        if (is_possible)
            assert_int_equal(entry, rows[i].entry);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_entry_is_told_apart),
        cmocka_unit_test(malformed_entries_are_refused),
        cmocka_unit_test(zeroing_is_expressed_where_entries_can),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
