/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/unit_test.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_snapshot_table.h"
#include "storage/testing/host_file_fake.h"

#define TABLE_AT 4096u

static char id[] = "1", name[] = "before the update", more[] = "unknown!";

static const struct qcow_snapshot sample = {
    .id = id,
    .name = name,
    .l1_offset = 8192,
    .l1_entries = 3,
    .date_s = 1700000000,
    .date_ns = 5,
    .vm_clock_ns = 123456789,
    .vm_state_bytes = (uint64_t)5 << 32,
    .disk_bytes = 1 << 20,
    .icount = QCOW_SNAPSHOT_ICOUNT_OFF,
    .more_extra = more,
    .more_extra_bytes = 8,
};

static const struct qcow_header header = {.version = 3,
                                          .cluster_bits = 12,
                                          .virtual_bytes = 1 << 20,
                                          .snapshot_count = 2,
                                          .snapshots_offset = TABLE_AT};

/* A file whose table has the sample twice; its length from the start of the table. */
static struct host_file *file_with_two(size_t *out_len)
{
    struct qcow_snapshot list[] = {sample, sample};
    struct qcow_snapshot_table table = {.list = list, .count = 2};
    struct host_file *file = NULL;
    uint8_t *data = NULL;

    ASSERT_OK(qcow_snapshot_table_build(&table, &data, out_len));
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(host_file_write_bytes(file, data, *out_len, TABLE_AT));
    free(data);
    return file;
}

TEST(what_is_built_is_loaded_again)
{
    size_t len;
    struct host_file *file = file_with_two(&len);
    struct qcow_snapshot_table table;

    ASSERT_OK(qcow_snapshot_table_load(file, &header, &table));

    assert_int_equal(table.count, 2);
    assert_int_equal(table.table_bytes, len);
    const struct qcow_snapshot *last = &table.list[1];
    assert_string_equal(last->id, "1");
    assert_string_equal(last->name, "before the update");
    assert_int_equal(last->l1_offset, 8192);
    assert_int_equal(last->l1_entries, 3);
    assert_int_equal(last->vm_clock_ns, 123456789);
    assert_true(last->vm_state_bytes == (uint64_t)5 << 32);
    assert_int_equal(last->disk_bytes, 1 << 20);
    assert_true(last->icount == QCOW_SNAPSHOT_ICOUNT_OFF);
    assert_int_equal(last->more_extra_bytes, 8);
    assert_memory_equal(last->more_extra, "unknown!", 8);
    qcow_snapshot_table_finish(&table);
    host_file_destroy(file);
}

TEST(a_table_that_is_cut_is_refused_at_every_length)
{
    size_t len;
    struct host_file *file = file_with_two(&len);
    struct qcow_snapshot_table table;

    /* The last entry needs no padding behind it. */
    for (size_t cut = 0; cut < len - 7; cut++) {
        ASSERT_OK(host_file_truncate(file, TABLE_AT + cut));
        assert_fails(qcow_snapshot_table_load(file, &header, &table), ERR_INVALID);
        host_file_destroy(file);
        file = file_with_two(&len);
    }
    host_file_destroy(file);
}

static void refused(size_t at, uint8_t value)
{
    size_t len;
    struct host_file *file = file_with_two(&len);
    struct qcow_snapshot_table table;

    ASSERT_OK(host_file_write_bytes(file, &value, 1, TABLE_AT + at));
    assert_fails(qcow_snapshot_table_load(file, &header, &table), ERR_INVALID);
    host_file_destroy(file);
}

TEST(what_can_not_be_is_refused)
{
    refused(7, 1);     /* an L1 table that is not aligned */
    refused(0, 0x80);  /* or behind all that is possible */
    refused(8, 0x40);  /* or too large */
    refused(36, 1);    /* extra data without end */
    refused(39, 8);    /* or less of it than version 3 demands */
    refused(12, 0xff); /* an id longer than the file */
}

TEST(version_2_needs_no_extra_data)
{
    struct qcow_header old = header;
    uint8_t entry[48] = {0};
    struct host_file *file = NULL;
    struct qcow_snapshot_table table;

    old.version = 2;
    old.snapshot_count = 1;
    entry[13] = 1; /* id of one byte */
    entry[15] = 1; /* name of one byte */
    entry[35] = 9; /* VM state of nine bytes */
    entry[40] = 'i';
    entry[41] = 'n';
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(host_file_write_bytes(file, entry, sizeof(entry), TABLE_AT));

    ASSERT_OK(qcow_snapshot_table_load(file, &old, &table));
    assert_string_equal(table.list[0].id, "i");
    assert_string_equal(table.list[0].name, "n");
    assert_int_equal(table.list[0].vm_state_bytes, 9);
    assert_int_equal(table.list[0].disk_bytes, 1 << 20);
    qcow_snapshot_table_finish(&table);
    host_file_destroy(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_built_is_loaded_again),
        cmocka_unit_test(a_table_that_is_cut_is_refused_at_every_length),
        cmocka_unit_test(what_can_not_be_is_refused),
        cmocka_unit_test(version_2_needs_no_extra_data),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
