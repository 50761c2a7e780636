/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/disk_image.h"
#include "storage/image_lock.h"

#define DISK_BYTES (4u << 20)

static char folder[] = "/tmp/disk_image_test.XXXXXX";

/* A path in the test's folder; valid until the sixteenth call after it. */
static const char *at(const char *name)
{
    static char paths[16][128];
    static unsigned next;
    char *path = paths[next++ % 16];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void make_raw(const char *name)
{
    int fd = open(at(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    assert_int_equal(close(fd), 0);
}

static void fill(struct block *block, uint64_t offset, size_t len, int value)
{
    uint8_t *data = malloc(len);
    struct iovec iov = {data, len};

    assert_non_null(data);
    memset(data, value, len);
    ASSERT_OK(block_write(block, &iov, 1, offset));
    free(data);
}

static uint8_t byte_at(struct block *block, uint64_t offset)
{
    uint8_t data[512];
    struct iovec iov = {data, sizeof(data)};

    ASSERT_OK(block_read(block, &iov, 1, offset & ~(uint64_t)511));
    return data[offset & 511];
}

static struct block *open_disk(const char *name, const char *format, enum disk_image_access access)
{
    struct block *block = NULL;

    ASSERT_OK(disk_image_open(at(name), format, access, &block));
    return block;
}

static void expect_open_fails(const char *name, const char *format, enum err_kind kind,
                              const char *text)
{
    struct block *block = NULL;
    struct err *err = disk_image_open(at(name), format, DISK_IMAGE_WRITABLE, &block);

    assert_non_null(err);
    assert_int_equal(err_kind(err), kind);
    if (strstr(err_message(err), text) == NULL)
        fail_msg("'%s' is not in '%s'", text, err_message(err));
    err_free(err);
}

TEST(an_overlay_shows_its_base_and_keeps_writes_to_itself)
{
    make_raw("web.img");
    struct block *base = open_disk("web.img", "raw", DISK_IMAGE_WRITABLE);
    fill(base, 0, DISK_BYTES, 1);
    ASSERT_OK(block_close(base));
    ASSERT_OK(disk_image_create_overlay(at("web.000001.qcow2"), at("web.img"), "raw", DISK_BYTES));

    struct block *disk = open_disk("web.000001.qcow2", "qcow2", DISK_IMAGE_WRITABLE);
    fill(disk, 4096, 512, 2);
    ASSERT_OK(block_flush(disk));

    assert_int_equal(byte_at(disk, 4095), 1);
    assert_int_equal(byte_at(disk, 4096), 2);
    assert_int_equal(byte_at(disk, 4608), 1);
    ASSERT_OK(block_close(disk));
    base = open_disk("web.img", "raw", DISK_IMAGE_READ_ONLY);
    assert_int_equal(byte_at(base, 4096), 1);
    ASSERT_OK(block_close(base));
}

TEST(overlays_are_numbered_after_the_newest)
{
    char *path = NULL;

    make_raw("db.img");
    make_raw("db.000007.qcow2");
    make_raw("db.7.qcow2");
    make_raw("dbx.000009.qcow2");
    ASSERT_OK(disk_image_next_overlay(at("db.img"), &path));
    assert_string_equal(path, at("db.000008.qcow2"));
    free(path);
    ASSERT_OK(disk_image_next_overlay(at("db.000003.qcow2"), &path));
    assert_string_equal(path, at("db.000008.qcow2"));
    free(path);
}

TEST(a_switch_freezes_the_old_layer_and_goes_on_in_the_overlay)
{
    make_raw("vm.img");
    struct block *disk = open_disk("vm.img", "raw", DISK_IMAGE_WRITABLE);
    struct stat status;
    fill(disk, 0, 65536, 1);

    for (int layer = 1; layer <= 3; layer++) {
        char *overlay = NULL;
        const char *old = layer == 1   ? at("vm.img")
                          : layer == 2 ? at("vm.000001.qcow2")
                                       : at("vm.000002.qcow2");
        const char *format = layer == 1 ? "raw" : "qcow2";
        ASSERT_OK(disk_image_next_overlay(old, &overlay));
        ASSERT_OK(disk_image_create_overlay(overlay, old, format, DISK_BYTES));
        ASSERT_OK(disk_image_switch(&disk, old, format, overlay));
        assert_int_equal(stat(old, &status), 0);
        assert_int_equal(status.st_mode & 0222, 0);
        fill(disk, (uint64_t)layer * 8192, 512, layer + 1);
        free(overlay);
    }

    assert_int_equal(byte_at(disk, 0), 1);
    assert_int_equal(byte_at(disk, 8192), 2);
    assert_int_equal(byte_at(disk, 24576), 4);
    ASSERT_OK(block_close(disk));
    expect_open_fails("vm.000001.qcow2", "qcow2", ERR_STATE, "vm.000003.qcow2");
    expect_open_fails("vm.img", "raw", ERR_STATE, "vm.000003.qcow2");
    disk = open_disk("vm.000003.qcow2", "qcow2", DISK_IMAGE_WRITABLE);
    assert_int_equal(byte_at(disk, 16384), 3);
    ASSERT_OK(block_close(disk));
}

TEST(a_chain_at_its_longest_is_refused_before_a_switch)
{
    make_raw("long.img");
    struct block *disk = open_disk("long.img", "raw", DISK_IMAGE_WRITABLE);
    char *old = strdup(at("long.img"));
    const char *format = "raw";

    for (unsigned layer = 0; layer < DISK_BACKING_DEPTH_MAX; layer++) {
        char *overlay = NULL;
        ASSERT_OK(disk_image_check_switch(disk));
        ASSERT_OK(disk_image_next_overlay(old, &overlay));
        ASSERT_OK(disk_image_create_overlay(overlay, old, format, DISK_BYTES));
        ASSERT_OK(disk_image_switch(&disk, old, format, overlay));
        free(old);
        old = overlay;
        format = "qcow2";
    }

    assert_fails(disk_image_check_switch(disk), ERR_STATE);
    fill(disk, 0, 512, 7);
    assert_int_equal(byte_at(disk, 0), 7);
    ASSERT_OK(block_close(disk));
    free(old);
}

TEST(a_switch_to_somebody_elses_overlay_changes_nothing)
{
    make_raw("a.img");
    make_raw("b.img");
    ASSERT_OK(disk_image_create_overlay(at("b.000001.qcow2"), at("b.img"), "raw", DISK_BYTES));
    struct block *disk = open_disk("a.img", "raw", DISK_IMAGE_WRITABLE);

    assert_fails(disk_image_switch(&disk, at("a.img"), "raw", at("b.000001.qcow2")), ERR_INVALID);
    assert_fails(disk_image_switch(&disk, at("a.img"), "raw", at("none.qcow2")), ERR_NOT_FOUND);

    fill(disk, 0, 512, 3);
    assert_int_equal(byte_at(disk, 0), 3);
    ASSERT_OK(block_close(disk));
}

TEST(a_prepared_switch_opens_nothing)
{
    make_raw("ready.img");
    struct block *disk = open_disk("ready.img", "raw", DISK_IMAGE_WRITABLE);
    fill(disk, 0, 8192, 1);
    ASSERT_OK(
        disk_image_create_overlay(at("ready.000001.qcow2"), at("ready.img"), "raw", DISK_BYTES));
    assert_fails(disk_image_prepare(disk, at("none.qcow2")), ERR_NOT_FOUND);
    ASSERT_OK(disk_image_prepare(disk, at("ready.000001.qcow2")));
    /* It is locked from then on, and the disk still its own. */
    expect_open_fails("ready.000001.qcow2", "qcow2", ERR_DENIED, "in use by another process");
    fill(disk, 4096, 4096, 2);
    assert_int_equal(rename(at("ready.000001.qcow2"), at("hidden")), 0);

    ASSERT_OK(disk_image_switch(&disk, at("ready.img"), "raw", at("ready.000001.qcow2")));

    fill(disk, 0, 4096, 3);
    assert_int_equal(byte_at(disk, 0), 3);
    assert_int_equal(byte_at(disk, 4096), 2);
    assert_int_equal(rename(at("hidden"), at("ready.000001.qcow2")), 0);
    ASSERT_OK(disk_image_create_overlay(at("ready.000002.qcow2"), at("ready.000001.qcow2"), "qcow2",
                                        DISK_BYTES));
    ASSERT_OK(disk_image_prepare(disk, at("ready.000002.qcow2")));
    disk_image_unprepare(disk);
    /* Nobody holds the second overlay any more, but its backing image is in use. */
    expect_open_fails("ready.000002.qcow2", "qcow2", ERR_DENIED, "ready.000001.qcow2");
    ASSERT_OK(block_close(disk));
}

TEST(a_disk_grows_on_any_layer_and_forgets_a_smaller_overlay)
{
    make_raw("big.img");
    struct block *disk = open_disk("big.img", "raw", DISK_IMAGE_WRITABLE);
    fill(disk, DISK_BYTES - 512, 512, 1);
    ASSERT_OK(disk_image_create_overlay(at("big.000001.qcow2"), at("big.img"), "raw", DISK_BYTES));
    ASSERT_OK(disk_image_prepare(disk, at("big.000001.qcow2")));

    ASSERT_OK(disk_image_grow(disk, DISK_BYTES + 4096));
    assert_fails(disk_image_grow(disk, DISK_BYTES), ERR_STATE);
    assert_fails(disk_image_switch(&disk, at("big.img"), "raw", at("big.000001.qcow2")),
                 ERR_INVALID);
    assert_int_equal(unlink(at("big.000001.qcow2")), 0);
    ASSERT_OK(
        disk_image_create_overlay(at("big.000001.qcow2"), at("big.img"), "raw", DISK_BYTES + 4096));
    ASSERT_OK(disk_image_switch(&disk, at("big.img"), "raw", at("big.000001.qcow2")));
    ASSERT_OK(disk_image_grow(disk, 2 * DISK_BYTES));

    assert_int_equal(disk->virtual_bytes, 2 * DISK_BYTES);
    assert_int_equal(byte_at(disk, DISK_BYTES - 1), 1);
    assert_int_equal(byte_at(disk, DISK_BYTES), 0);
    assert_int_equal(byte_at(disk, 2 * DISK_BYTES - 1), 0);
    fill(disk, 2 * DISK_BYTES - 512, 512, 3);
    ASSERT_OK(block_close(disk));
    disk = open_disk("big.000001.qcow2", "qcow2", DISK_IMAGE_READ_ONLY);
    assert_int_equal(byte_at(disk, 2 * DISK_BYTES - 1), 3);
    assert_fails(disk_image_grow(disk, 3 * DISK_BYTES), ERR_STATE);
    ASSERT_OK(block_close(disk));
}

TEST(a_disk_in_use_is_refused)
{
    make_raw("busy.img");
    struct block *disk = open_disk("busy.img", "raw", DISK_IMAGE_WRITABLE);
    uint64_t bytes = 0;

    expect_open_fails("busy.img", "raw", ERR_DENIED, "in use by another process");
    ASSERT_OK(disk_image_check(at("busy.img"), "raw", DISK_IMAGE_WRITABLE, &bytes));
    assert_int_equal(bytes, DISK_BYTES);
    ASSERT_OK(block_close(disk));
}

TEST(a_disk_that_is_handed_over_is_free_for_others_until_it_is_taken_back)
{
    make_raw("move.img");
    ASSERT_OK(
        disk_image_create_overlay(at("move.000001.qcow2"), at("move.img"), "raw", DISK_BYTES));
    struct block *disk = open_disk("move.000001.qcow2", "qcow2", DISK_IMAGE_WRITABLE);
    fill(disk, 0, 4096, 1);

    ASSERT_OK(disk_image_hand_over(disk));
    assert_fails(block_flush(disk), ERR_STATE);
    struct block *target = open_disk("move.000001.qcow2", "qcow2", DISK_IMAGE_WRITABLE);
    fill(target, 512, 512, 2);
    assert_fails(disk_image_take_back(disk), ERR_DENIED);
    ASSERT_OK(block_close(target));
    ASSERT_OK(disk_image_take_back(disk));

    assert_int_equal(byte_at(disk, 0), 1);
    assert_int_equal(byte_at(disk, 512), 2);
    ASSERT_OK(block_close(disk));
}

/* Could another process write to this file? */
static struct err *try_to_write(const char *name)
{
    int fd = open(at(name), O_RDONLY);

    assert_true(fd >= 0);
    struct err *err = image_lock_take(fd, at(name), IMAGE_LOCK_WRITER);
    assert_int_equal(close(fd), 0);
    return err;
}

TEST(every_layer_is_locked_but_while_the_disk_is_handed_over)
{
    static const char *const names[] = {"held.img", "held.000001.qcow2", "held.000002.qcow2"};

    make_raw(names[0]);
    struct block *disk = open_disk(names[0], "raw", DISK_IMAGE_WRITABLE);
    for (size_t i = 1; i < ARRAY_COUNT(names); i++) {
        const char *format = i == 1 ? "raw" : "qcow2";
        ASSERT_OK(disk_image_create_overlay(at(names[i]), at(names[i - 1]), format, DISK_BYTES));
        ASSERT_OK(disk_image_switch(&disk, at(names[i - 1]), format, at(names[i])));
    }

    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        assert_fails(try_to_write(names[i]), ERR_DENIED);
    ASSERT_OK(disk_image_hand_over(disk));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        ASSERT_OK(try_to_write(names[i]));

    /* Somebody has one of the layers: nothing is taken back, and nothing is kept. */
    int fd = open(at(names[1]), O_RDONLY);
    ASSERT_OK(image_lock_take(fd, names[1], IMAGE_LOCK_WRITER));
    assert_fails(disk_image_take_back(disk), ERR_DENIED);
    ASSERT_OK(try_to_write(names[0]));
    ASSERT_OK(try_to_write(names[2]));
    assert_int_equal(close(fd), 0);
    ASSERT_OK(disk_image_take_back(disk));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        assert_fails(try_to_write(names[i]), ERR_DENIED);
    ASSERT_OK(block_close(disk));
}

TEST(what_can_not_be_opened_says_why)
{
    make_raw("plain.img");
    ASSERT_OK(disk_image_create_overlay(at("lost.qcow2"), at("plain.img"), "raw", DISK_BYTES));
    assert_int_equal(unlink(at("plain.img")), 0);
    assert_int_equal(symlink("loop.qcow2", at("turn.qcow2")), 0);
    ASSERT_OK(disk_image_create_overlay(at("loop.qcow2"), at("turn.qcow2"), "qcow2", DISK_BYTES));
    make_raw("text.img");

    expect_open_fails("lost.qcow2", "qcow2", ERR_NOT_FOUND, "plain.img");
    expect_open_fails("loop.qcow2", "qcow2", ERR_DENIED, "in use");
    expect_open_fails("text.img", "qcow2", ERR_INVALID, "not a qcow2 image; say that it is raw");
    expect_open_fails("text.img", "vmdk", ERR_INCOMPATIBLE, "vmdk");
    expect_open_fails(".", "raw", ERR_IO, "directory");

    struct block *block = NULL;
    assert_fails(disk_image_open(at("loop.qcow2"), "qcow2", DISK_IMAGE_READ_ONLY, &block),
                 ERR_INVALID);
}

TEST(a_backing_file_elsewhere_is_opened_where_the_operator_allows_it)
{
    const char *elsewhere = at("bases");
    struct disk_image_name name = {
        .path = at("vms/far.qcow2"), .format = "qcow2", .access = DISK_IMAGE_WRITABLE};
    struct block *disk = NULL;
    uint64_t bytes = 0;

    assert_int_equal(mkdir(elsewhere, 0700), 0);
    assert_int_equal(mkdir(at("vms"), 0700), 0);
    make_raw("bases/debian.img");
    ASSERT_OK(
        disk_image_create_overlay(at("vms/far.qcow2"), at("bases/debian.img"), "raw", DISK_BYTES));
    expect_open_fails("vms/far.qcow2", "qcow2", ERR_DENIED, "--image-folder");
    assert_fails(disk_image_check_named(&name, &bytes), ERR_DENIED);

    name.folders = &elsewhere;
    name.folder_count = 1;
    ASSERT_OK(disk_image_check_named(&name, &bytes));
    ASSERT_OK(disk_image_open_named(&name, &disk));
    fill(disk, 0, 512, 4);
    /* Also when it is opened again after a hand-over. */
    ASSERT_OK(disk_image_hand_over(disk));
    ASSERT_OK(disk_image_take_back(disk));
    assert_int_equal(byte_at(disk, 0), 4);
    ASSERT_OK(block_close(disk));
}

/* How many files this process has open past the page cache. */
static unsigned direct_files(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFL);
        count += flags >= 0 && (flags & O_DIRECT) != 0;
    }
    return count;
}

TEST(a_chain_works_past_the_page_cache)
{
    struct disk_image_name name = {.path = at("cold.000001.qcow2"),
                                   .format = "qcow2",
                                   .access = DISK_IMAGE_WRITABLE,
                                   .cache = HOST_FILE_CACHE_NONE};
    struct block *disk = NULL;

    make_raw("cold.img");
    struct block *base = open_disk("cold.img", "raw", DISK_IMAGE_WRITABLE);
    fill(base, 0, DISK_BYTES, 1);
    ASSERT_OK(block_close(base));
    ASSERT_OK(
        disk_image_create_overlay(at("cold.000001.qcow2"), at("cold.img"), "raw", DISK_BYTES));
    ASSERT_OK(disk_image_open_named(&name, &disk));
    fill(disk, 4096, 512, 2);
    fill(disk, 66048, 9728, 3);
    ASSERT_OK(block_close(disk));

    disk = open_disk("cold.000001.qcow2", "qcow2", DISK_IMAGE_READ_ONLY);
    assert_int_equal(byte_at(disk, 4095), 1);
    assert_int_equal(byte_at(disk, 4096), 2);
    assert_int_equal(byte_at(disk, 4608), 1);
    assert_int_equal(byte_at(disk, 66047), 1);
    assert_int_equal(byte_at(disk, 66048), 3);
    assert_int_equal(byte_at(disk, 66048 + 9727), 3);
    assert_int_equal(byte_at(disk, 66048 + 9728), 1);
    ASSERT_OK(block_close(disk));

    /* Layers, too, whose headers are read by it. */
    ASSERT_OK(disk_image_create_overlay(at("cold.000002.qcow2"), at("cold.000001.qcow2"), "qcow2",
                                        DISK_BYTES));
    unsigned before = direct_files();
    name.path = at("cold.000001.qcow2");
    ASSERT_OK(disk_image_open_named(&name, &disk));
    unsigned of_two = direct_files() - before; /* 0 on a file system that can not */
    ASSERT_OK(block_close(disk));
    name.path = at("cold.000002.qcow2");
    ASSERT_OK(disk_image_open_named(&name, &disk));
    assert_int_equal(direct_files() - before, of_two / 2 * 3);
    assert_int_equal(byte_at(disk, 4096), 2);
    assert_int_equal(byte_at(disk, 66048), 3);
    assert_int_equal(byte_at(disk, 0), 1);
    ASSERT_OK(block_close(disk));
}

/* As when it is removed between opening and locking. */
TEST(an_image_without_a_name_is_not_written)
{
    struct block *disk = NULL;
    char path[64];

    make_raw("gone.img");
    int fd = open(at("gone.img"), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ASSERT_OK(disk_image_open(path, "raw", DISK_IMAGE_WRITABLE, &disk));
    ASSERT_OK(block_close(disk));
    assert_int_equal(unlink(at("gone.img")), 0);
    assert_fails(disk_image_open(path, "raw", DISK_IMAGE_WRITABLE, &disk), ERR_NOT_FOUND);
    assert_int_equal(close(fd), 0);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_overlay_shows_its_base_and_keeps_writes_to_itself),
        cmocka_unit_test(overlays_are_numbered_after_the_newest),
        cmocka_unit_test(a_switch_freezes_the_old_layer_and_goes_on_in_the_overlay),
        cmocka_unit_test(a_chain_at_its_longest_is_refused_before_a_switch),
        cmocka_unit_test(a_switch_to_somebody_elses_overlay_changes_nothing),
        cmocka_unit_test(a_prepared_switch_opens_nothing),
        cmocka_unit_test(a_disk_grows_on_any_layer_and_forgets_a_smaller_overlay),
        cmocka_unit_test(a_disk_in_use_is_refused),
        cmocka_unit_test(a_disk_that_is_handed_over_is_free_for_others_until_it_is_taken_back),
        cmocka_unit_test(every_layer_is_locked_but_while_the_disk_is_handed_over),
        cmocka_unit_test(what_can_not_be_opened_says_why),
        cmocka_unit_test(a_backing_file_elsewhere_is_opened_where_the_operator_allows_it),
        cmocka_unit_test(a_chain_works_past_the_page_cache),
        cmocka_unit_test(an_image_without_a_name_is_not_written),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
