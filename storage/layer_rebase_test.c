/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/layer_rebase.h"
#include "storage/overlay_file.h"

#define DISK_BYTES ((size_t)(4 * MIB))

static char folder[] = "/tmp/layer_rebase_test.XXXXXX";
static uint8_t *expected;

static const char *path_of(const char *name)
{
    static char paths[64][128];
    static unsigned next;
    char *path = paths[next++ % 64];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void make_raw(const char *name, size_t bytes, int value)
{
    static uint8_t data[2 * DISK_BYTES];
    int fd = open(path_of(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0 && bytes <= sizeof(data));
    memset(data, 0, sizeof(data));
    memset(data + bytes / 4, value, bytes / 2);
    assert_int_equal(pwrite(fd, data, bytes, 0), (ssize_t)bytes);
    assert_int_equal(close(fd), 0);
}

static struct block *open_disk(const char *name)
{
    struct block *block = NULL;

    ASSERT_OK(disk_image_open(path_of(name), "qcow2", DISK_IMAGE_WRITABLE, &block));
    return block;
}

static void read_all(const char *name, uint8_t *out_data)
{
    struct block *block = open_disk(name);
    struct iovec iov = {out_data, DISK_BYTES};

    ASSERT_OK(block_read(block, &iov, 1, 0));
    ASSERT_OK(block_close(block));
}

static void expect_same(const char *name)
{
    uint8_t *data = malloc(DISK_BYTES);

    assert_non_null(data);
    read_all(name, data);
    assert_memory_equal(data, expected, DISK_BYTES);
    free(data);
}

/* old.raw, with mid.qcow2 and top.qcow2 over it; new.raw has other data. */
static void make_chain(void)
{
    static const char *const overlays[][3] = {{"mid.qcow2", "old.raw", "raw"},
                                              {"top.qcow2", "mid.qcow2", "qcow2"}};
    uint8_t sectors[70 * 512];
    struct iovec iov = {sectors, sizeof(sectors)};

    memset(sectors, 7, sizeof(sectors));
    make_raw("old.raw", DISK_BYTES, 1);
    make_raw("new.raw", DISK_BYTES, 2);
    for (size_t i = 0; i < 2; i++) {
        (void)unlink(path_of(overlays[i][0]));
        ASSERT_OK(overlay_file_create(path_of(overlays[i][0]), path_of(overlays[i][1]),
                                      overlays[i][2], DISK_BYTES));
        struct block *block = open_disk(overlays[i][0]);
        ASSERT_OK(block_write(block, &iov, 1, (i + 1) * MIB + 512));
        ASSERT_OK(block_write_zeroes(block, 2 * MIB + i * 100 * KIB, 64 * KIB, true));
        ASSERT_OK(block_close(block));
    }
    read_all("top.qcow2", expected);
}

static struct err *rebase(const char *name, const char *backing, const char *format,
                          uint64_t *out_copied)
{
    struct layer_rebase rebase = {
        .image = {.path = path_of(name), .format = "qcow2", .access = DISK_IMAGE_WRITABLE},
        .backing = backing,
        .backing_format = format,
    };

    return layer_rebase(&rebase, out_copied);
}

TEST(onto_the_image_below_copies_only_what_is_between)
{
    uint64_t copied = 0;

    make_chain();
    ASSERT_OK(rebase("top.qcow2", "old.raw", "raw", &copied));

    expect_same("top.qcow2");
    assert_true(copied > 0 && copied <= 192 * KIB);
    assert_int_equal(unlink(path_of("mid.qcow2")), 0);
    expect_same("top.qcow2");
}

TEST(onto_none_the_image_stands_alone)
{
    uint64_t copied = 0;

    make_chain();
    ASSERT_OK(rebase("top.qcow2", NULL, NULL, &copied));

    assert_int_equal(unlink(path_of("mid.qcow2")), 0);
    assert_int_equal(unlink(path_of("old.raw")), 0);
    expect_same("top.qcow2");
}

TEST(onto_other_data_everything_stays_as_it_was)
{
    uint64_t copied = 0;

    make_chain();
    ASSERT_OK(rebase("top.qcow2", "new.raw", "raw", &copied));
    expect_same("top.qcow2");
}

TEST(onto_an_image_that_is_shorter_or_longer)
{
    uint64_t copied = 0;

    make_chain();
    make_raw("new.raw", DISK_BYTES / 4, 2);
    ASSERT_OK(rebase("top.qcow2", "new.raw", "raw", &copied));
    expect_same("top.qcow2");
    make_raw("old.raw", DISK_BYTES * 2, 3);
    ASSERT_OK(rebase("top.qcow2", "old.raw", "raw", &copied));
    expect_same("top.qcow2");
}

TEST(an_image_that_stood_alone_hides_what_it_is_put_onto)
{
    uint64_t copied = 0;

    make_chain();
    ASSERT_OK(rebase("top.qcow2", NULL, NULL, &copied));
    ASSERT_OK(rebase("top.qcow2", "new.raw", "raw", &copied));
    expect_same("top.qcow2");
}

TEST(the_name_alone_can_be_changed)
{
    struct layer_rebase name = {
        .image = {.path = path_of("top.qcow2"), .format = "qcow2", .access = DISK_IMAGE_WRITABLE},
        .backing = "moved.qcow2",
        .backing_format = "qcow2",
    };

    make_chain();
    assert_int_equal(rename(path_of("mid.qcow2"), path_of("moved.qcow2")), 0);
    ASSERT_OK(layer_rebase_name(&name));
    expect_same("top.qcow2");
}

static bool give_up(struct layer_merge_watch *watch, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)watch;
    return done_bytes < total_bytes / 2;
}

TEST(what_is_cancelled_or_impossible_shows_the_same)
{
    struct layer_merge_watch watch = {.go_on = give_up};
    struct layer_rebase rebase_half = {
        .image = {.path = path_of("top.qcow2"), .format = "qcow2", .access = DISK_IMAGE_WRITABLE},
        .backing = "new.raw",
        .backing_format = "raw",
        .watch = &watch,
    };
    uint64_t copied = 0;

    make_chain();
    assert_fails(layer_rebase(&rebase_half, &copied), ERR_CANCELLED);
    expect_same("top.qcow2");
    assert_fails(rebase("top.qcow2", "missing.raw", "raw", &copied), ERR_NOT_FOUND);
    assert_fails(rebase("top.qcow2", "/etc/hostname", "raw", &copied), ERR_DENIED);
    assert_fails(rebase("top.qcow2", "top.qcow2", "qcow2", &copied), ERR_STATE);
    expect_same("top.qcow2");
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"old.raw", "new.raw", "mid.qcow2", "top.qcow2",
                                        "moved.qcow2"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)unlink(path_of(names[i]));
    free(expected);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(onto_the_image_below_copies_only_what_is_between),
        cmocka_unit_test(onto_none_the_image_stands_alone),
        cmocka_unit_test(onto_other_data_everything_stays_as_it_was),
        cmocka_unit_test(onto_an_image_that_is_shorter_or_longer),
        cmocka_unit_test(an_image_that_stood_alone_hides_what_it_is_put_onto),
        cmocka_unit_test(the_name_alone_can_be_changed),
        cmocka_unit_test(what_is_cancelled_or_impossible_shows_the_same),
    };

    expected = malloc(DISK_BYTES);
    if (expected == NULL || mkdtemp(folder) == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
