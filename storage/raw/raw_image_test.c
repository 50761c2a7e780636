/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/raw/raw_image.h"
#include "storage/testing/host_file_fake.h"

static struct block *open_fake(size_t len, bool is_read_only, struct host_file **out_file)
{
    static uint8_t bytes[4096];
    struct block *block = NULL;

    memset(bytes, 1, sizeof(bytes));
    ASSERT_OK(host_file_fake_create(bytes, len, out_file));
    ASSERT_OK(raw_image_open(*out_file, is_read_only, &block));
    return block;
}

TEST(a_raw_disk_is_the_bytes_of_its_file)
{
    struct host_file *file = NULL;
    struct block *block = open_fake(4096, false, &file);
    uint8_t data[512], back[1024];
    const struct iovec out[] = {{data, 512}}, in[] = {{back, 1024}};

    memset(data, 9, sizeof(data));
    ASSERT_OK(block_write(block, out, 1, 1024));
    ASSERT_OK(block_write_zeroes(block, 1536, 256, false));
    ASSERT_OK(block_read(block, in, 1, 1024));

    assert_int_equal(back[511], 9);
    assert_int_equal(back[512], 0);
    assert_int_equal(back[768], 1);
    ASSERT_OK(block_discard(block, 0, 512));
    ASSERT_OK(block_flush(block));
    assert_int_equal(host_file_fake_syncs(file), 1);
    ASSERT_OK(block_close(block));
}

TEST(a_part_of_a_sector_at_the_end_is_filled_up_with_zeros)
{
    struct host_file *file = NULL;
    struct block *block = open_fake(1300, false, &file);
    uint8_t data[512];
    const struct iovec iov[] = {{data, 512}};
    uint64_t file_bytes = 0;

    assert_int_equal(block->virtual_bytes, 1536);
    ASSERT_OK(block_read(block, iov, 1, 1024));
    assert_int_equal(data[275], 1);
    assert_int_equal(data[276], 0);
    assert_int_equal(data[511], 0);
    data[511] = 7;
    ASSERT_OK(block_write(block, iov, 1, 1024));
    ASSERT_OK(host_file_size(file, &file_bytes));
    assert_int_equal(file_bytes, 1536);
    ASSERT_OK(block_close(block));
}

TEST(a_resized_disk_has_zeros_where_it_grew)
{
    struct host_file *file = NULL;
    struct block *block = open_fake(1024, false, &file);
    uint8_t back[512];
    const struct iovec in[] = {{back, 512}};

    ASSERT_OK(raw_image_resize(block, 2048));
    assert_int_equal(block->virtual_bytes, 2048);
    assert_int_equal(host_file_fake_syncs(file), 1);
    ASSERT_OK(block_read(block, in, 1, 1024));
    assert_int_equal(back[0], 0);
    ASSERT_OK(raw_image_resize(block, 512));
    assert_fails(block_read(block, in, 1, 512), ERR_INVALID);

    assert_fails(raw_image_resize(block, 700), ERR_INVALID);
    assert_fails(raw_image_resize(block, DISK_BYTES_MAX + 512), ERR_INVALID);
    block->is_read_only = true;
    assert_fails(raw_image_resize(block, 1024), ERR_STATE);
    block->is_read_only = false;
    assert_int_equal(block->virtual_bytes, 512);
    ASSERT_OK(block_close(block));
}

TEST(requests_inside_the_disk_are_planned_where_they_lie)
{
    struct host_file *file = NULL;
    struct block *block = open_fake(4096, false, &file);
    struct block_plan plan;

    assert_true(block_plan(block, BLOCK_REQUEST_CHANGE, 512, 1024, &plan));
    assert_int_equal(plan.count, 1);
    assert_ptr_equal(plan.extents[0].file, file);
    assert_int_equal(plan.extents[0].offset, 512);
    assert_int_equal(plan.extents[0].bytes, 1024);
    block_plan_finish(&plan, BLOCK_TRANSFERRED);

    assert_false(block_plan(block, BLOCK_REQUEST_READ, 3584, 1024, &plan));
    assert_int_equal(plan.count, 0);
    block->is_read_only = true;
    assert_false(block_plan(block, BLOCK_REQUEST_CHANGE, 0, 512, &plan));
    assert_true(block_plan(block, BLOCK_REQUEST_READ, 0, 512, &plan));
    block->is_read_only = false;
    ASSERT_OK(block_close(block));
}

TEST(a_read_only_disk_is_not_changed)
{
    struct host_file *file = NULL;
    struct block *block = open_fake(4096, true, &file);
    uint8_t data[512] = {0};
    const struct iovec out[] = {{data, 512}};

    assert_fails(block_write(block, out, 1, 0), ERR_STATE);
    assert_fails(block_write_zeroes(block, 0, 512, true), ERR_STATE);
    assert_fails(block_discard(block, 0, 512), ERR_STATE);
    ASSERT_OK(block_flush(block));
    assert_int_equal(host_file_fake_operations(file), 0);
    ASSERT_OK(block_close(block));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_raw_disk_is_the_bytes_of_its_file),
        cmocka_unit_test(a_part_of_a_sector_at_the_end_is_filled_up_with_zeros),
        cmocka_unit_test(a_resized_disk_has_zeros_where_it_grew),
        cmocka_unit_test(requests_inside_the_disk_are_planned_where_they_lie),
        cmocka_unit_test(a_read_only_disk_is_not_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
