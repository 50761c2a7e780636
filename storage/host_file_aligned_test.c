/* SPDX-License-Identifier: Apache-2.0 */
/* host_file_aligned_test.c - any bytes over a file that takes blocks of 4 KiB only. */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/host_file_aligned.h"
#include "storage/testing/host_file_fake.h"

#define FILE_BYTES (512 * KIB)
#define BLOCK      ((uint64_t)4096)
#define SECTOR     512u

static struct host_file *open_aligned(const void *data, size_t len, struct host_file **out_fake)
{
    const struct host_file_alignment alignment = {.memory = 512, .offset = BLOCK};
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(data, len, out_fake));
    host_file_fake_align(*out_fake, alignment);
    ASSERT_OK(host_file_aligned_create(*out_fake, alignment, &file));
    return file;
}

/* A generator of its own, so that every run is the same. */
static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void fill(uint8_t *data, size_t len, uint32_t *random)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)next_random(random);
}

/* Up to four pieces of odd lengths at odd addresses. */
static void split(struct io_vector *vector, uint8_t *data, size_t len, uint32_t *random)
{
    vector->count = 0;
    while (vector->count < 3 && len > 1) {
        size_t part = next_random(random) % len;
        io_vector_append(vector, data, part);
        data += part;
        len -= part;
    }
    io_vector_append(vector, data, len);
}

TEST(any_bytes_can_be_written_and_read)
{
    static uint8_t model[FILE_BYTES], bytes[FILE_BYTES + 64];
    struct host_file *fake = NULL;
    uint32_t random = 7;
    fill(model, sizeof(model), &random);
    struct host_file *file = open_aligned(model, sizeof(model), &fake);

    for (unsigned round = 0; round < 400; round++) {
        uint64_t offset = next_random(&random) % FILE_BYTES;
        size_t limit = round % 4 == 0 ? FILE_BYTES : 3 * BLOCK;
        size_t len = 1 + next_random(&random) % MIN(FILE_BYTES - offset, limit);
        uint8_t *data = bytes + next_random(&random) % 64;
        struct io_vector vector;
        split(&vector, data, len, &random);
        if (round % 2 == 0) {
            fill(data, len, &random);
            ASSERT_OK(host_file_write(file, &vector, offset));
            memcpy(model + offset, data, len);
        } else {
            ASSERT_OK(host_file_read(file, &vector, offset));
            assert_memory_equal(data, model + offset, len);
        }
    }

    host_file_destroy(file);
}

TEST(whole_blocks_go_straight_on)
{
    static _Alignas(4096) uint8_t data[64 * KIB];
    struct host_file *fake = NULL;
    struct host_file *file = open_aligned(data, sizeof(data), &fake);

    ASSERT_OK(host_file_write_bytes(file, data, sizeof(data), 0));
    ASSERT_OK(host_file_write_bytes(file, data, 2 * BLOCK, BLOCK));
    ASSERT_OK(host_file_write_bytes(file, data + 512, BLOCK, BLOCK));

    assert_int_equal(host_file_fake_operations(fake), 3);
    host_file_destroy(file);
}

TEST(a_file_is_not_made_longer_than_asked)
{
    struct host_file *fake = NULL;
    struct host_file *file = open_aligned(NULL, 0, &fake);
    uint8_t bytes[3 * SECTOR];
    uint64_t size = 0;

    memset(bytes, 7, sizeof(bytes));
    ASSERT_OK(host_file_write_bytes(file, bytes, 100, 0));
    ASSERT_OK(host_file_size(file, &size));
    assert_int_equal(size, 100);
    ASSERT_OK(host_file_write_bytes(file, bytes, sizeof(bytes), BLOCK));
    ASSERT_OK(host_file_size(file, &size));
    assert_int_equal(size, BLOCK + sizeof(bytes));
    ASSERT_OK(host_file_write_bytes(file, bytes, 8, BLOCK));
    ASSERT_OK(host_file_size(file, &size));
    assert_int_equal(size, BLOCK + sizeof(bytes));

    ASSERT_OK(host_file_read_bytes(file, bytes, 200, 0));
    assert_int_equal(bytes[99], 7);
    assert_int_equal(bytes[100], 0);
    host_file_destroy(file);
}

TEST(a_write_that_fails_says_so_and_lets_others_on)
{
    struct host_file *fake = NULL;
    struct host_file *file = open_aligned(NULL, 0, &fake);

    host_file_fake_fail(fake, FAKE_FAULT_IO, 0, 1);
    assert_fails(host_file_write_bytes(file, "abc", 3, 10), ERR_IO);

    ASSERT_OK(host_file_write_bytes(file, "abc", 3, 10));
    host_file_destroy(file);
}

/* Eight writers, each with every eighth sector, and one who rewrites whole blocks of its own in
 * between: all of them in the same blocks of 4 KiB. */
struct writer_thread {
    struct host_file *file;
    struct thread *thread;
    unsigned number;
};

#define WRITERS    8u
#define ROUNDS     60u
#define TEST_BYTES (32u * BLOCK)

static void write_sectors(void *argument)
{
    struct writer_thread *self = argument;
    _Alignas(512) uint8_t sector[SECTOR];

    for (unsigned round = 0; round < ROUNDS; round++)
        for (uint64_t at = 0; at < TEST_BYTES; at += BLOCK) {
            memset(sector, (int)(self->number * 16 + round % 16), sizeof(sector));
            struct err *err = host_file_write_bytes(self->file, sector, SECTOR,
                                                    at + (uint64_t)self->number * SECTOR);
            assert_null(err);
        }
}

TEST(writers_of_one_block_do_not_undo_each_other)
{
    struct host_file *fake = NULL;
    struct host_file *file = open_aligned(NULL, 0, &fake);
    struct writer_thread writers[WRITERS];
    uint8_t block[BLOCK];

    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer_thread){.file = file, .number = i};
        ASSERT_OK(thread_create(ROLE_TEST, i, write_sectors, &writers[i], &writers[i].thread));
    }
    for (unsigned i = 0; i < WRITERS; i++)
        thread_join(writers[i].thread);

    for (uint64_t at = 0; at < TEST_BYTES; at += BLOCK) {
        ASSERT_OK(host_file_read_bytes(file, block, BLOCK, at));
        for (size_t i = 0; i < BLOCK; i++)
            assert_int_equal(block[i], i / SECTOR * 16 + (ROUNDS - 1) % 16);
    }
    host_file_destroy(file);
}

/* Each block is written as a whole, once, while somebody else changes one sector of it. */
static void write_blocks(void *argument)
{
    struct writer_thread *self = argument;
    static _Alignas(4096) uint8_t block[BLOCK];

    memset(block, 1, sizeof(block));
    for (uint64_t at = 0; at < TEST_BYTES; at += BLOCK)
        assert_null(host_file_write_bytes(self->file, block, BLOCK, at));
}

TEST(a_whole_block_is_not_undone_by_a_change_of_a_part)
{
    struct host_file *fake = NULL;
    struct host_file *file = open_aligned(NULL, 0, &fake);
    struct writer_thread whole = {.file = file}, part = {.file = file, .number = 3};
    uint8_t block[BLOCK];

    ASSERT_OK(thread_create(ROLE_TEST, 0, write_sectors, &part, &part.thread));
    ASSERT_OK(thread_create(ROLE_TEST, 1, write_blocks, &whole, &whole.thread));
    thread_join(whole.thread);
    thread_join(part.thread);

    for (uint64_t at = 0; at < TEST_BYTES; at += BLOCK) {
        ASSERT_OK(host_file_read_bytes(file, block, BLOCK, at));
        for (size_t i = 0; i < BLOCK; i++)
            if (i / SECTOR != 3)
                assert_int_equal(block[i], 1);
    }
    host_file_destroy(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bytes_can_be_written_and_read),
        cmocka_unit_test(whole_blocks_go_straight_on),
        cmocka_unit_test(a_file_is_not_made_longer_than_asked),
        cmocka_unit_test(a_write_that_fails_says_so_and_lets_others_on),
        cmocka_unit_test(writers_of_one_block_do_not_undo_each_other),
        cmocka_unit_test(a_whole_block_is_not_undone_by_a_change_of_a_part),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
