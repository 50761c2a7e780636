/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "storage/host_file.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/host_file_recorder.h"

static struct host_file *open_temporary(void)
{
    char path[] = "/tmp/host_file_test.XXXXXX";
    struct host_file *file = NULL;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    ASSERT_OK(host_file_from_fd(fd, path, &file));
    return file;
}

TEST(what_lies_past_the_end_reads_as_zeros)
{
    struct host_file *file = open_temporary();
    char bytes[8];

    ASSERT_OK(host_file_write_bytes(file, "abc", 3, 0));
    memset(bytes, 'x', sizeof(bytes));
    ASSERT_OK(host_file_read_bytes(file, bytes, sizeof(bytes), 1));

    assert_memory_equal(bytes, "bc\0\0\0\0\0\0", 8);
    host_file_destroy(file);
}

TEST(a_scattered_buffer_is_written_as_one_piece)
{
    struct host_file *file = open_temporary();
    struct iovec iovs[] = {{"abcd", 4}, {"", 0}, {"efgh", 4}};
    struct io_vector part = {.count = 0};
    char bytes[5];

    io_vector_append_slice(&part, iovs, 3, 2, 5);
    ASSERT_OK(host_file_write(file, &part, 100));
    ASSERT_OK(host_file_read_bytes(file, bytes, sizeof(bytes), 100));

    assert_memory_equal(bytes, "cdefg", 5);
    host_file_destroy(file);
}

TEST(zeros_and_holes_replace_what_was_there)
{
    struct host_file *file = open_temporary();
    uint8_t bytes[4096];
    uint64_t size = 0;

    memset(bytes, 7, sizeof(bytes));
    for (uint64_t i = 0; i < 4; i++)
        ASSERT_OK(host_file_write_bytes(file, bytes, sizeof(bytes), i * 4096));
    ASSERT_OK(host_file_write_zeroes(file, 100, 5000));
    ASSERT_OK(host_file_punch(file, 8192, 4096));

    ASSERT_OK(host_file_read_bytes(file, bytes, sizeof(bytes), 4096));
    assert_int_equal(bytes[5099 - 4096], 0);
    assert_int_equal(bytes[5100 - 4096], 7);
    ASSERT_OK(host_file_size(file, &size));
    assert_int_equal(size, 16384);
    host_file_destroy(file);
}

/* On a file system that can not, the same works through its page cache. */
TEST(any_bytes_can_be_written_past_the_page_cache)
{
    char path[] = "host_file_test.XXXXXX";
    struct host_file *file = NULL;
    uint8_t bytes[9000];
    uint64_t size = 0;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    ASSERT_OK(host_file_open_fd(fd, path, HOST_FILE_CACHE_NONE, &file));
    assert_int_equal(file->door->fd, fd);
    memset(bytes, 'a', sizeof(bytes));
    ASSERT_OK(host_file_write_bytes(file, bytes, 5000, 100));
    ASSERT_OK(host_file_write_bytes(file, "bc", 2, 4095));
    ASSERT_OK(host_file_size(file, &size));
    assert_int_equal(size, 5100);

    ASSERT_OK(host_file_read_bytes(file, bytes, sizeof(bytes), 99));
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[1], 'a');
    assert_memory_equal(bytes + 4095 - 99, "bca", 3);
    assert_int_equal(bytes[5000], 'a');
    assert_int_equal(bytes[5001], 0);
    host_file_destroy(file);
}

static bool is_direct(int fd)
{
    return (fcntl(fd, F_GETFL) & O_DIRECT) != 0;
}

TEST(a_file_goes_past_the_page_cache_when_it_is_told_to)
{
    char path[] = "host_file_test.XXXXXX";
    struct host_file *file = NULL;
    char bytes[4];
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    int other = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(pwrite(fd, "head", 4, 0), 4);
    ASSERT_OK(host_file_open_fd(other, path, HOST_FILE_CACHE_NONE, &file));
    bool can_be = is_direct(other);
    host_file_destroy(file);

    ASSERT_OK(host_file_open_fd(fd, path, HOST_FILE_CACHE_NONE_LATER, &file));
    ASSERT_OK(host_file_read_bytes(file, bytes, sizeof(bytes), 0));
    assert_memory_equal(bytes, "head", 4);
    assert_false(is_direct(fd));
    host_file_go_direct(file);
    assert_int_equal(is_direct(fd), can_be);
    ASSERT_OK(host_file_read_bytes(file, bytes, sizeof(bytes), 1));
    assert_memory_equal(bytes, "ead\0", 4);
    host_file_destroy(file);
}

TEST(a_folder_is_refused)
{
    struct host_file *file = NULL;

    assert_fails(host_file_from_fd(open("/", O_RDONLY | O_CLOEXEC), "/", &file), ERR_INVALID);
}

TEST(a_sync_that_failed_once_fails_for_ever)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_fail(file, FAKE_FAULT_IO, 0, 1);

    assert_fails(host_file_sync(file), ERR_IO);
    assert_fails(host_file_sync(file), ERR_IO);
    assert_int_equal(host_file_fake_syncs(file), 1);
    host_file_destroy(file);
}

TEST(a_short_write_leaves_its_first_half)
{
    struct host_file *file = NULL;
    char bytes[4];

    ASSERT_OK(host_file_fake_create("....", 4, &file));
    host_file_fake_fail(file, FAKE_FAULT_SHORT_WRITE, 0, 1);

    assert_fails(host_file_write_bytes(file, "abcd", 4, 0), ERR_IO);
    ASSERT_OK(host_file_read_bytes(file, bytes, 4, 0));
    assert_memory_equal(bytes, "ab..", 4);
    host_file_destroy(file);
}

TEST(a_recorder_logs_changes_in_their_order)
{
    struct host_file *fake = NULL, *file = NULL;
    struct record_log log = {NULL, 0};

    ASSERT_OK(host_file_fake_create(NULL, 0, &fake));
    ASSERT_OK(host_file_recorder_create(fake, &log, &file));
    ASSERT_OK(host_file_write_bytes(file, "abcd", 4, 512));
    ASSERT_OK(host_file_sync(file));
    ASSERT_OK(host_file_punch(file, 512, 2));
    host_file_destroy(file);

    assert_int_equal(log.count, 3);
    assert_int_equal(log.records[0].kind, RECORD_WRITE);
    assert_memory_equal(log.records[0].data, "abcd", 4);
    assert_int_equal(log.records[1].kind, RECORD_SYNC);
    assert_int_equal(log.records[2].kind, RECORD_PUNCH);
    record_log_finish(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lies_past_the_end_reads_as_zeros),
        cmocka_unit_test(a_scattered_buffer_is_written_as_one_piece),
        cmocka_unit_test(zeros_and_holes_replace_what_was_there),
        cmocka_unit_test(any_bytes_can_be_written_past_the_page_cache),
        cmocka_unit_test(a_file_goes_past_the_page_cache_when_it_is_told_to),
        cmocka_unit_test(a_folder_is_refused),
        cmocka_unit_test(a_sync_that_failed_once_fails_for_ever),
        cmocka_unit_test(a_short_write_leaves_its_first_half),
        cmocka_unit_test(a_recorder_logs_changes_in_their_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
