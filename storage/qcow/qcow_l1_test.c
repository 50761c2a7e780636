/* SPDX-License-Identifier: Apache-2.0 */
/* qcow_l1_test.c - when the L1 table is read. Its flushes: qcow_flush_test.c, qcow_power_cut_test.c
 */
#include <string.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/image_fixture.h"
#include "storage/testing/planned_request.h"

static struct image_bytes made;

static int make_image(void **state)
{
    const struct qcow_create_options options = {
        .virtual_bytes = 1 * MIB, .version = 3, .cluster_bits = 12};

    (void)state;
    made = image_fixture_make(&options);
    return 0;
}

static int free_image(void **state)
{
    (void)state;
    image_fixture_finish(&made);
    return 0;
}

static struct host_file *file_of(const struct image_bytes *image)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    return file;
}

static struct err *read_sector(struct block *disk)
{
    uint8_t data[512];
    struct iovec iov = {data, sizeof(data)};

    return block_read(disk, &iov, 1, 0);
}

TEST(opening_for_reading_reads_the_header_alone)
{
    struct host_file *file = file_of(&made);
    struct block *disk = NULL;

    ASSERT_OK(qcow_image_open(file, true, &disk));
    assert_int_equal(host_file_fake_reads(file), 1);
    ASSERT_OK(read_sector(disk));
    assert_int_equal(host_file_fake_reads(file), 4); /* L1 table, L2 slice, data */
    ASSERT_OK(read_sector(disk));
    assert_int_equal(host_file_fake_reads(file), 5);
    ASSERT_OK(block_close(disk));
}

TEST(nothing_is_planned_before_it_was_read)
{
    struct block *disk = NULL;
    uint8_t data[512];
    bool is_planned = true;

    ASSERT_OK(qcow_image_open(file_of(&made), true, &disk));
    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, &is_planned));
    assert_false(is_planned);
    ASSERT_OK(planned_read(disk, data, sizeof(data), 0, &is_planned));
    assert_true(is_planned);
    ASSERT_OK(block_close(disk));
}

TEST(one_that_can_not_be_read_fails_reads_until_it_can)
{
    uint64_t at = image_fixture_l1(&made);
    struct host_file *file = file_of(&made);
    struct block *disk = NULL;

    host_file_fake_fail_reads(file, at, at + 8);
    ASSERT_OK(qcow_image_open(file, true, &disk));
    for (unsigned i = 0; i < 2; i++) {
        struct err *err = read_sector(disk);
        assert_non_null(err);
        assert_int_equal(err_kind(err), ERR_IO);
        assert_non_null(strstr(err_message(err), "L1 table of image 'fake': read 'fake' at "));
        err_free(err);
    }
    host_file_fake_fail_reads(file, 0, 0);
    ASSERT_OK(read_sector(disk));
    ASSERT_OK(block_close(disk));
}

TEST(one_that_can_not_be_read_refuses_to_be_written)
{
    uint64_t at = image_fixture_l1(&made);
    struct host_file *file = file_of(&made);
    struct block *disk = NULL;

    host_file_fake_fail_reads(file, at, at + 8);
    assert_fails(qcow_image_open(file, false, &disk), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_for_reading_reads_the_header_alone),
        cmocka_unit_test(nothing_is_planned_before_it_was_read),
        cmocka_unit_test(one_that_can_not_be_read_fails_reads_until_it_can),
        cmocka_unit_test(one_that_can_not_be_read_refuses_to_be_written),
    };

    return cmocka_run_group_tests(tests, make_image, free_image);
}
