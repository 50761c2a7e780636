/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_guard.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/host_file_fake.h"

#define CLUSTERS      64u
#define DISK_BYTES    (1u << 20)
#define CLUSTER_BITS  12u
#define CLUSTER_BYTES ((size_t)1 << CLUSTER_BITS)

static struct qcow_guard empty_guard(void)
{
    return (struct qcow_guard){.cluster_bits = CLUSTER_BITS};
}

TEST(adjacent_tables_of_a_kind_are_one_range)
{
    struct qcow_guard guard = empty_guard();

    ASSERT_OK(qcow_guard_add(&guard, QCOW_TABLE_L2, 10, 2));
    ASSERT_OK(qcow_guard_add(&guard, QCOW_TABLE_L2, 14, 1));
    ASSERT_OK(qcow_guard_add(&guard, QCOW_TABLE_L1, 15, 1));
    assert_int_equal(guard.count, 3);
    ASSERT_OK(qcow_guard_add(&guard, QCOW_TABLE_L2, 12, 2));
    assert_int_equal(guard.count, 2);
    assert_true(qcow_guard_covers(&guard, QCOW_TABLE_L2, 10 * CLUSTER_BYTES, 5 * CLUSTER_BYTES));
    assert_false(
        qcow_guard_covers(&guard, QCOW_TABLE_L2, 10 * CLUSTER_BYTES, 5 * CLUSTER_BYTES + 1));
    assert_false(qcow_guard_covers(&guard, QCOW_TABLE_L2, 10 * CLUSTER_BYTES - 1, 2));
    assert_fails(qcow_guard_add(&guard, QCOW_TABLE_L2, 14, 1), ERR_INVALID);
    assert_fails(qcow_guard_add(&guard, QCOW_TABLE_L2, 8, 3), ERR_INVALID);
    assert_int_equal(qcow_guard_end(&guard), 16);
    qcow_guard_finish(&guard);
}

TEST(ranges_agree_with_a_plain_array)
{
    struct qcow_guard guard = empty_guard();
    enum qcow_table_kind model[CLUSTERS] = {QCOW_TABLE_NONE};
    uint64_t random = 99;

    for (unsigned round = 0; round < 20000; round++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint64_t count = 1 + random / 64 % 5, first = random / 1024 % (CLUSTERS - count + 1);
        if (random % 2 == 0) {
            enum qcow_table_kind kind = random / 4 % 2 == 0 ? QCOW_TABLE_L2 : QCOW_TABLE_REFCOUNTS;
            bool is_free = true;
            for (uint64_t i = first; i < first + count; i++)
                is_free = is_free && model[i] == QCOW_TABLE_NONE;
            struct err *err = qcow_guard_add(&guard, kind, first, count);
            assert_int_equal(err == NULL, is_free);
            err_free(err);
            for (uint64_t i = first; is_free && i < first + count; i++)
                model[i] = kind;
        } else {
            qcow_guard_remove(&guard, first, count);
            for (uint64_t i = first; i < first + count; i++)
                model[i] = QCOW_TABLE_NONE;
        }
        for (uint64_t i = 0; i < CLUSTERS; i++)
            assert_int_equal(qcow_guard_kind(&guard, i), model[i]);
    }
    qcow_guard_finish(&guard);
}

struct image {
    uint8_t *bytes;
    size_t len;
    struct block *disk;
};

static struct err *try_open(struct image *image)
{
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(image->bytes, image->len, &file));
    free(image->bytes);
    host_file_fake_keep(file, (void **)&image->bytes, &image->len);
    return qcow_image_open(file, false, &image->disk);
}

static struct err *write_at(const struct image *image, uint64_t offset)
{
    uint8_t data[CLUSTER_BYTES];
    struct iovec iov = {data, sizeof(data)};

    memset(data, 0xaa, sizeof(data));
    return block_write(image->disk, &iov, 1, offset);
}

/* Closed, with some data; its tables lie in clusters 1 (refcounts), 2 (block), 3 (L1), 4 (L2). */
static void make(struct image *image)
{
    struct host_file *file = NULL;

    *image = (struct image){.bytes = NULL};
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(qcow_create(file, &(struct qcow_create_options){.virtual_bytes = DISK_BYTES,
                                                              .version = 3,
                                                              .cluster_bits = CLUSTER_BITS}));
    host_file_fake_keep(file, (void **)&image->bytes, &image->len);
    ASSERT_OK(qcow_image_open(file, false, &image->disk));
    ASSERT_OK(write_at(image, 0));
    ASSERT_OK(block_close(image->disk));
    assert_int_equal(image->bytes[3 * CLUSTER_BYTES + 6], 0x40);
}

TEST(a_table_that_is_not_counted_is_not_handed_out)
{
    struct image image;
    uint8_t table[CLUSTER_BYTES];

    make(&image);
    memcpy(table, image.bytes + 4 * CLUSTER_BYTES, sizeof(table));
    memset(image.bytes + 2 * CLUSTER_BYTES + (size_t)4 * 2, 0, 2); /* its count */
    ASSERT_OK(try_open(&image));
    /* The first write fills the run at the end of the file, and finds the hole meanwhile. */
    assert_fails(write_at(&image, DISK_BYTES / 2), ERR_INVALID);
    assert_fails(write_at(&image, 0), ERR_STATE);
    assert_fails(block_discard(image.disk, 0, DISK_BYTES), ERR_STATE);
    assert_fails(block_flush(image.disk), ERR_STATE);
    assert_fails(block_close(image.disk), ERR_STATE);

    assert_memory_equal(image.bytes + 4 * CLUSTER_BYTES, table, sizeof(table));
    assert_int_equal(image.bytes[QCOW_HEADER_AT_INCOMPATIBLE + 7], QCOW_INCOMPATIBLE_CORRUPT);
    assert_fails(try_open(&image), ERR_STATE);
    free(image.bytes);
}

TEST(an_image_whose_tables_overlap_is_not_written)
{
    struct image image;

    make(&image);
    image.bytes[3 * CLUSTER_BYTES + 6] = 0x20; /* the L2 table is the refcount block */
    assert_fails(try_open(&image), ERR_INVALID);
    free(image.bytes);
}

TEST(an_entry_that_points_to_a_table_is_not_followed)
{
    struct image image;
    uint8_t data[512];
    struct iovec iov = {data, sizeof(data)};

    for (unsigned cluster = 1; cluster <= 4; cluster++) {
        make(&image);
        image.bytes[4 * CLUSTER_BYTES + 6] = (uint8_t)(cluster << 4);
        ASSERT_OK(try_open(&image));
        assert_fails(block_read(image.disk, &iov, 1, 0), ERR_INVALID);
        assert_fails(write_at(&image, 0), ERR_INVALID);
        ASSERT_OK(block_close(image.disk));
        free(image.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adjacent_tables_of_a_kind_are_one_range),
        cmocka_unit_test(ranges_agree_with_a_plain_array),
        cmocka_unit_test(a_table_that_is_not_counted_is_not_handed_out),
        cmocka_unit_test(an_image_whose_tables_overlap_is_not_written),
        cmocka_unit_test(an_entry_that_points_to_a_table_is_not_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
