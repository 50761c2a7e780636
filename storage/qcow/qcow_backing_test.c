/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_backing.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_header.h"
#include "storage/testing/host_file_fake.h"

static struct host_file *make(uint32_t cluster_bits, const char *name, const char *format)
{
    struct qcow_create_options options = {.virtual_bytes = MIB,
                                          .version = 3,
                                          .cluster_bits = cluster_bits,
                                          .backing_name = name,
                                          .backing_format = format};
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(qcow_create(file, &options));
    return file;
}

static void expect_backing(struct host_file *file, const char *name, const char *format)
{
    struct qcow_header header;

    ASSERT_OK(qcow_header_read(file, &header));
    assert_string_equal(header.backing_name, name);
    if (name[0] != '\0')
        assert_string_equal(header.backing_format, format);
}

static const char *name_of_len(size_t len)
{
    static char name[2048];

    memset(name, 'x', len);
    name[len] = '\0';
    return name;
}

TEST(a_name_is_set_replaced_and_removed)
{
    struct host_file *file = make(16, NULL, NULL);

    ASSERT_OK(qcow_backing_set(file, "base.img", "raw"));
    expect_backing(file, "base.img", "raw");
    ASSERT_OK(qcow_backing_set(file, "web.000017.qcow2", "qcow2"));
    expect_backing(file, "web.000017.qcow2", "qcow2");
    ASSERT_OK(qcow_backing_set(file, NULL, NULL));
    expect_backing(file, "", "");
    ASSERT_OK(qcow_backing_set(file, "again", "raw"));
    expect_backing(file, "again", "raw");
    host_file_destroy(file);
}

TEST(names_of_every_length_fit)
{
    for (size_t len = 1; len <= 1023; len += 73) {
        struct host_file *file = make(16, "first", "raw");
        ASSERT_OK(qcow_backing_set(file, name_of_len(len), "qcow2"));
        expect_backing(file, name_of_len(len), "qcow2");
        ASSERT_OK(qcow_backing_set(file, name_of_len(1024 - len), "raw"));
        expect_backing(file, name_of_len(1024 - len), "raw");
        host_file_destroy(file);
    }
}

TEST(a_name_that_does_not_fit_changes_nothing)
{
    struct host_file *file = make(9, "first", "raw");

    assert_fails(qcow_backing_set(file, name_of_len(500), "qcow2"), ERR_INCOMPATIBLE);
    assert_fails(qcow_backing_set(file, name_of_len(1024), "qcow2"), ERR_INVALID);
    assert_fails(qcow_backing_set(file, "", "qcow2"), ERR_INVALID);
    expect_backing(file, "first", "raw");
    host_file_destroy(file);
}

/* QEMU's headers: a table of feature names that ends in the second sector. */
TEST(what_stands_behind_the_first_sector_is_not_overwritten)
{
    struct host_file *file = make(16, NULL, NULL);
    uint8_t names[8 + 480 + 8] = {0x68, 0x03, 0xf8, 0x57, 0, 0, 480 >> 8, 480 & 255};
    uint8_t after[sizeof(names)];

    ASSERT_OK(host_file_write_bytes(file, names, sizeof(names), QCOW_HEADER_V3_BYTES));
    assert_fails(qcow_backing_set(file, "base", "raw"), ERR_INCOMPATIBLE);
    ASSERT_OK(host_file_read_bytes(file, after, sizeof(after), QCOW_HEADER_V3_BYTES));
    assert_memory_equal(names, after, sizeof(names));

    /* One that ends with the sector: the end of the list is in the first, so it can move. */
    names[6] = 384 >> 8;
    names[7] = 384 & 255;
    ASSERT_OK(host_file_write_bytes(file, names, sizeof(names), QCOW_HEADER_V3_BYTES));
    ASSERT_OK(qcow_backing_set(file, "base", "raw"));
    expect_backing(file, "base", "raw");
    host_file_destroy(file);
}

TEST(a_failure_leaves_the_old_name_or_the_new_one)
{
    for (uint64_t ordinal = 0; ordinal < 4; ordinal++) {
        struct host_file *file = make(16, name_of_len(700), "raw");
        struct qcow_header header;

        host_file_fake_fail(file, FAKE_FAULT_IO, ordinal, 1);
        struct err *err = qcow_backing_set(file, "short", "qcow2");
        assert_non_null(err);
        err_free(err);
        ASSERT_OK(qcow_header_read(file, &header));
        bool is_old = strcmp(header.backing_name, name_of_len(700)) == 0 &&
                      strcmp(header.backing_format, "raw") == 0;
        bool is_new = strcmp(header.backing_name, "short") == 0 &&
                      strcmp(header.backing_format, "qcow2") == 0;
        assert_true(is_old || is_new);
        host_file_destroy(file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_set_replaced_and_removed),
        cmocka_unit_test(names_of_every_length_fit),
        cmocka_unit_test(a_name_that_does_not_fit_changes_nothing),
        cmocka_unit_test(what_stands_behind_the_first_sector_is_not_overwritten),
        cmocka_unit_test(a_failure_leaves_the_old_name_or_the_new_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
