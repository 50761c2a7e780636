/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_fixture.c - see image_fixture.h.
 * Tested by: qcow_check_test.c
 */
#include "storage/testing/image_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/unit_test.h"
#include "storage/block.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/host_file_fake.h"

#define OFFSET_MASK 0x00fffffffffffe00u

static void write_some(struct block *disk)
{
    static uint8_t data[96 << 10];
    struct iovec iov = {data, sizeof(data)};

    memset(data, 'x', sizeof(data));
    ASSERT_OK(block_write(disk, &iov, 1, 0));
    iov.iov_len = 4096;
    ASSERT_OK(block_write(disk, &iov, 1, disk->virtual_bytes / 2));
    ASSERT_OK(block_write(disk, &iov, 1, disk->virtual_bytes - 4096));
    ASSERT_OK(block_write_zeroes(disk, 32 << 10, 16 << 10, true));
    ASSERT_OK(block_flush(disk));
    ASSERT_OK(block_discard(disk, 64 << 10, 16 << 10));
}

struct image_bytes image_fixture_make(const struct qcow_create_options *options)
{
    struct image_bytes image = {.data = NULL};
    struct host_file *file = NULL;
    struct block *disk = NULL;
    void *data = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, &data, &image.len);
    ASSERT_OK(qcow_create(file, options));
    ASSERT_OK(qcow_image_open(file, false, &disk));
    write_some(disk);
    ASSERT_OK(block_close(disk));
    image.data = data;
    return image;
}

struct image_bytes image_fixture_copy(const struct image_bytes *image)
{
    struct image_bytes copy = {.data = malloc(image->len + 1), .len = image->len};

    assert_non_null(copy.data);
    memcpy(copy.data, image->data, image->len);
    return copy;
}

void image_fixture_finish(struct image_bytes *image)
{
    free(image->data);
    image->data = NULL;
}

uint64_t image_fixture_get(const struct image_bytes *image, uint64_t offset)
{
    struct reader in = reader_of(image->data + offset, image->len - (size_t)offset);

    return reader_be64(&in);
}

void image_fixture_put(struct image_bytes *image, uint64_t offset, uint64_t value)
{
    struct writer out = writer_of(image->data + offset, image->len - (size_t)offset);

    writer_be64(&out, value);
    assert_true(writer_ok(&out));
}

uint64_t image_fixture_l1(const struct image_bytes *image)
{
    return image_fixture_get(image, 40);
}

uint64_t image_fixture_l2(const struct image_bytes *image)
{
    return image_fixture_get(image, image_fixture_l1(image)) & OFFSET_MASK;
}

uint64_t image_fixture_block(const struct image_bytes *image)
{
    return image_fixture_get(image, image_fixture_get(image, 48)) & OFFSET_MASK;
}
