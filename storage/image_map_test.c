/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/image_folders.h"
#include "storage/image_map.h"
#include "storage/overlay_file.h"

#define DISK_BYTES    (8 * MIB)
#define CLUSTER_BYTES (64 * KIB) /* of an overlay */

static char folder[] = "/tmp/image_map_test.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[2][128];
    static unsigned next;

    next ^= 1;
    (void)snprintf(path[next], sizeof(path[next]), "%s/%s", folder, name);
    return path[next];
}

static void open_chain(const char *name, const char *format, enum disk_image_access access,
                       struct image_chain *out_chain)
{
    struct disk_image_name image = {.path = path_of(name), .format = format, .access = access};
    struct image_folders *folders = NULL;

    ASSERT_OK(image_folders_create(image.path, NULL, 0, &folders));
    ASSERT_OK(image_chain_open(&image, folders, IMAGE_LAYER_UNLOCKED, out_chain));
    image_folders_destroy(folders);
}

/* base.raw with data in [1 MiB, 2 MiB); over it mid.qcow2 and top.qcow2. */
static void make_images(void)
{
    static uint8_t data[MIB];
    struct iovec iov = {data, CLUSTER_BYTES};
    struct image_chain chain;

    memset(data, 0x5a, sizeof(data));
    int fd = open(path_of("base.raw"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)DISK_BYTES), 0);
    assert_int_equal(pwrite(fd, data, sizeof(data), (off_t)MIB), sizeof(data));
    assert_int_equal(close(fd), 0);

    (void)unlink(path_of("mid.qcow2"));
    (void)unlink(path_of("top.qcow2"));
    ASSERT_OK(overlay_file_create(path_of("mid.qcow2"), path_of("base.raw"), "raw", DISK_BYTES));
    open_chain("mid.qcow2", "qcow2", DISK_IMAGE_WRITABLE, &chain);
    ASSERT_OK(block_write(chain.top.block, &iov, 1, 3 * MIB));
    ASSERT_OK(block_write_zeroes(chain.top.block, MIB, CLUSTER_BYTES, true));
    ASSERT_OK(block_close(chain.top.block));
    ASSERT_OK(
        overlay_file_create(path_of("top.qcow2"), path_of("mid.qcow2"), "qcow2", DISK_BYTES + MIB));
    open_chain("top.qcow2", "qcow2", DISK_IMAGE_WRITABLE, &chain);
    ASSERT_OK(block_write(chain.top.block, &iov, 1, 5 * MIB));
    ASSERT_OK(block_close(chain.top.block));
}

struct expected {
    uint64_t from, bytes;
    enum image_extent_kind kind;
    unsigned depth;
};

static void expect(const struct image_chain *chain, const struct expected *rows, size_t count)
{
    uint64_t at = 0, end = chain->top.block->virtual_bytes;

    for (size_t i = 0; i < count; i++) {
        for (uint64_t to = rows[i].from + rows[i].bytes; at < to;) {
            struct image_extent extent;
            ASSERT_OK(image_chain_map(chain, at, end - at, &extent));
            assert_int_equal(extent.kind, rows[i].kind);
            assert_int_equal(extent.depth, rows[i].depth);
            assert_true(extent.bytes > 0 && extent.bytes <= to - at);
            assert_true(extent.has_offset == (extent.kind == IMAGE_EXTENT_DATA));
            at += extent.bytes;
        }
    }
    assert_true(at == end);
}

TEST(each_range_is_told_with_the_layer_that_holds_it)
{
    static const struct expected rows[] = {
        {0, MIB, IMAGE_EXTENT_ZERO, 2},
        {MIB, CLUSTER_BYTES, IMAGE_EXTENT_ZERO, 1},
        {MIB + CLUSTER_BYTES, MIB - CLUSTER_BYTES, IMAGE_EXTENT_DATA, 2},
        {2 * MIB, MIB, IMAGE_EXTENT_ZERO, 2},
        {3 * MIB, CLUSTER_BYTES, IMAGE_EXTENT_DATA, 1},
        {3 * MIB + CLUSTER_BYTES, 2 * MIB - CLUSTER_BYTES, IMAGE_EXTENT_ZERO, 2},
        {5 * MIB, CLUSTER_BYTES, IMAGE_EXTENT_DATA, 0},
        {5 * MIB + CLUSTER_BYTES, 3 * MIB - CLUSTER_BYTES, IMAGE_EXTENT_ZERO, 2},
        /* Behind the end of what lies below. */
        {8 * MIB, MIB, IMAGE_EXTENT_ZERO, 1},
    };
    struct image_chain chain;

    make_images();
    open_chain("top.qcow2", "qcow2", DISK_IMAGE_READ_ONLY, &chain);

    assert_int_equal(image_chain_depth(&chain), 3);
    assert_false(image_chain_layer(&chain, 2)->is_qcow);
    expect(&chain, rows, sizeof(rows) / sizeof(rows[0]));
    ASSERT_OK(block_close(chain.top.block));
}

TEST(the_offset_leads_to_the_data)
{
    uint8_t byte = 0;
    struct image_chain chain;
    struct image_extent extent;

    make_images();
    open_chain("top.qcow2", "qcow2", DISK_IMAGE_READ_ONLY, &chain);

    ASSERT_OK(image_chain_map(&chain, 5 * MIB + 12288, 4096, &extent));

    assert_int_equal(extent.bytes, 4096);
    assert_int_equal(pread(chain.top.fd, &byte, 1, (off_t)extent.host_offset), 1);
    assert_int_equal(byte, 0x5a);
    ASSERT_OK(block_close(chain.top.block));
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink(path_of("base.raw"));
    (void)unlink(path_of("mid.qcow2"));
    (void)unlink(path_of("top.qcow2"));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_range_is_told_with_the_layer_that_holds_it),
        cmocka_unit_test(the_offset_leads_to_the_data),
    };

    if (mkdtemp(folder) == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
