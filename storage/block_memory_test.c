/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/unit_test.h"
#include "storage/block_memory.h"

TEST(what_was_written_is_read_and_zeroed)
{
    struct block *block = NULL;
    char data[1024], back[1024];
    const struct iovec out[] = {{data, sizeof(data)}}, in[] = {{back, sizeof(back)}};

    memset(data, 5, sizeof(data));
    ASSERT_OK(block_memory_create(8192, &block));
    ASSERT_OK(block_write(block, out, 1, 512));
    ASSERT_OK(block_write_zeroes(block, 512, 512, true));
    ASSERT_OK(block_read(block, in, 1, 512));

    assert_int_equal(back[0], 0);
    assert_int_equal(back[512], 5);
    ASSERT_OK(block_flush(block));
    assert_int_equal(block_memory_flush_count(block), 1);
    ASSERT_OK(block_close(block));
}

TEST(requests_outside_the_disk_or_of_too_many_vectors_are_refused)
{
    struct block *block = NULL;
    char data[512] = {0};
    struct iovec many[300];

    for (int i = 0; i < 300; i++)
        many[i] = (struct iovec){data, 1};
    ASSERT_OK(block_memory_create(1024, &block));

    many[0].iov_len = 512;
    assert_fails(block_read(block, many, 1, 513), ERR_INVALID);
    assert_fails(block_write(block, many, 1, UINT64_MAX - 100), ERR_INVALID);
    assert_fails(block_discard(block, 1024, 1), ERR_INVALID);
    assert_fails(block_read(block, many, 300, 0), ERR_INVALID);
    block->is_read_only = true;
    assert_fails(block_write(block, many, 1, 0), ERR_STATE);
    ASSERT_OK(block_close(block));
}

TEST(a_disk_told_to_fail_fails)
{
    struct block *block = NULL;

    ASSERT_OK(block_memory_create(1024, &block));
    block_memory_set_failing(block, true);
    assert_fails(block_flush(block), ERR_IO);
    block_memory_set_failing(block, false);
    ASSERT_OK(block_flush(block));
    ASSERT_OK(block_close(block));
}

TEST(a_shorter_disk_reads_as_zeros_behind_its_end)
{
    struct block *block;
    uint8_t data[1024];
    struct iovec iovs[] = {{data, 700}, {data + 700, 324}};

    ASSERT_OK(block_memory_create(1024, &block));
    memset(block_memory_bytes(block), 7, 1024);
    for (uint64_t offset = 0; offset <= 1536; offset += 512) {
        memset(data, 1, sizeof(data));
        ASSERT_OK(block_read_padded(block, iovs, 2, offset));
        for (size_t i = 0; i < sizeof(data); i++)
            assert_int_equal(data[i], offset + i < 1024 ? 7 : 0);
    }
    memset(data, 1, sizeof(data));
    ASSERT_OK(block_read_padded(NULL, iovs, 2, 0));
    assert_int_equal(data[0] | data[1023], 0);
    ASSERT_OK(block_close(block));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read_and_zeroed),
        cmocka_unit_test(requests_outside_the_disk_or_of_too_many_vectors_are_refused),
        cmocka_unit_test(a_disk_told_to_fail_fails),
        cmocka_unit_test(a_shorter_disk_reads_as_zeros_behind_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
