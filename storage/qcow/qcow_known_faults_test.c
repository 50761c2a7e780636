/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_known_faults_test.c - images that harmed other programs, by the names under which that
 * became known. Each is refused, or used without harm.
 *
 * The images are made here: a sound one, and the change that the report describes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/disk_image.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_check.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/image_fixture.h"
#include "storage/testing/qcow_checker.h"

#define SECRET "what no guest may read"

/* Where header fields are. */
enum {
    AT_BACKING_OFFSET = 8,
    AT_BACKING_BYTES = 16,
    AT_CLUSTER_BITS = 20,
    AT_VIRTUAL_BYTES = 24,
    AT_L1_ENTRIES = 36,
    AT_L1_OFFSET = 40,
    AT_TABLE_OFFSET = 48,
    AT_TABLE_CLUSTERS = 56,
    AT_SNAPSHOTS = 60,
    AT_SNAPSHOTS_OFFSET = 64,
    AT_INCOMPATIBLE = 72,
    AT_AUTOCLEAR = 88,
    AT_HEADER_BYTES = 100,
    AT_EXTENSIONS = 112,
};

static char folder[128], secret_folder[128];

static struct image_bytes sound_image(void)
{
    return image_fixture_make(&(struct qcow_create_options){
        .virtual_bytes = 256 << 10, .version = 3, .cluster_bits = 12});
}

static void put32(struct image_bytes *image, uint64_t offset, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        image->data[offset + i] = (uint8_t)(value >> 8 * (3 - i));
}

/* NULL when it is taken; the image is then written too, which must leave no error. */
static struct err *open_and_write(const struct image_bytes *image)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;
    uint8_t data[3 * 512] = {1};
    struct iovec iov = {data, sizeof(data)};
    struct image_bytes after = {.len = 0};

    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    host_file_fake_keep(file, (void **)&after.data, &after.len);
    struct err *err = qcow_image_open(file, false, &disk);
    if (err == NULL) {
        for (uint64_t at = 0; at < disk->virtual_bytes; at += 8192)
            err_free(block_write(disk, &iov, 1, at));
        err_free(block_close(disk));
        struct qcow_verdict verdict = qcow_checker_run(after.data, after.len);
        if (verdict.errors > 0)
            fail_msg("taken, and then: %s", verdict.first);
    } else {
        assert_int_equal(after.len, image->len);
        assert_memory_equal(after.data, image->data, image->len);
    }
    image_fixture_finish(&after);
    return err;
}

static void assert_refused(struct image_bytes *image)
{
    struct err *err = open_and_write(image);

    assert_non_null(err);
    err_free(err);
    image_fixture_finish(image);
}

/* CVE-2014-0143: sizes of tables that overflow when bytes are computed from entries. */
TEST(sizes_of_tables_do_not_overflow)
{
    static const uint32_t sizes[] = {0x10000001, 0x20000000, 0x7fffffff, 0x80000000, UINT32_MAX};

    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct image_bytes image = sound_image();
        put32(&image, AT_L1_ENTRIES, sizes[i]);
        assert_refused(&image);
        image = sound_image();
        put32(&image, AT_TABLE_CLUSTERS, sizes[i]);
        assert_refused(&image);
        image = sound_image();
        put32(&image, AT_SNAPSHOTS, sizes[i]);
        image_fixture_put(&image, AT_SNAPSHOTS_OFFSET, 4096);
        assert_refused(&image);
    }
}

/* CVE-2014-0144: headers that were not validated. */
TEST(lengths_in_the_header_are_bounded)
{
    static const struct {
        uint64_t at;
        uint32_t value;
    } fields[] = {
        {AT_CLUSTER_BITS, 0},          {AT_CLUSTER_BITS, 8},   {AT_CLUSTER_BITS, 22},
        {AT_CLUSTER_BITS, 63},         {AT_CLUSTER_BITS, 64},  {AT_CLUSTER_BITS, UINT32_MAX},
        {AT_HEADER_BYTES, 0},          {AT_HEADER_BYTES, 103}, {AT_HEADER_BYTES, 8192},
        {AT_HEADER_BYTES, UINT32_MAX},
    };

    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        struct image_bytes image = sound_image();
        put32(&image, fields[i].at, fields[i].value);
        assert_refused(&image);
    }
    struct image_bytes image = sound_image();
    image_fixture_put(&image, AT_BACKING_OFFSET, 512);
    put32(&image, AT_BACKING_BYTES, UINT32_MAX);
    assert_refused(&image);
    image = sound_image();
    put32(&image, AT_EXTENSIONS, 0xe2792aca);
    put32(&image, AT_EXTENSIONS + 4, UINT32_MAX);
    assert_refused(&image);
}

/* CVE-2014-0147: a refcount table at an offset that is negative or not that of a cluster. */
TEST(tables_lie_in_clusters_of_the_file)
{
    static const uint64_t fields[] = {AT_L1_OFFSET, AT_TABLE_OFFSET, AT_SNAPSHOTS_OFFSET};
    static const uint64_t offsets[] = {1, 512, (uint64_t)1 << 63, UINT64_MAX, INT64_MAX - 4095};

    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        for (size_t j = 0; j < ARRAY_COUNT(offsets); j++) {
            struct image_bytes image = sound_image();
            image_fixture_put(&image, fields[i], offsets[j]);
            assert_refused(&image);
        }
}

/* What any of them did must be refused before anything is written, or leave no hazard. */
static void try_snapshots(const struct image_bytes *image, bool *out_is_listed)
{
    static struct err *(*const uses[])(struct host_file *, const char *) = {qcow_snapshot_apply,
                                                                            qcow_snapshot_delete};

    for (size_t i = 0; i < ARRAY_COUNT(uses); i++) {
        struct host_file *file = NULL;
        struct image_bytes after = {.len = 0};
        struct qcow_snapshot_table table = {.count = 0};
        ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
        host_file_fake_keep(file, (void **)&after.data, &after.len);
        struct err *err = qcow_snapshot_list(file, &table);
        *out_is_listed = err == NULL;
        qcow_snapshot_table_finish(&table);
        if (err == NULL)
            err = uses[i](file, "one");
        host_file_destroy(file);
        struct qcow_verdict verdict = qcow_checker_run(after.data, after.len);
        if (err != NULL &&
            (after.len != image->len || memcmp(after.data, image->data, image->len) != 0))
            fail_msg("refused, but not untouched: %s", err_message(err));
        if (err == NULL && verdict.errors > 0)
            fail_msg("done, and then: %s", verdict.first);
        err_free(err);
        image_fixture_finish(&after);
    }
}

/* CVE-2014-0145: the L1 table of a snapshot that is larger than the memory that it is read into.
 * CVE-2014-0146: opening fails late, when some tables are loaded and some are not. */
TEST(tables_of_snapshots_are_bounded)
{
    static const uint32_t entries[] = {2,          63,         65,         0x400001,
                                       0x10000001, 0x20000001, 0x7fffffff, UINT32_MAX};
    static const uint64_t offsets[] = {0,         512, 4096, (uint64_t)1 << 40, INT64_MAX - 4095,
                                       UINT64_MAX};
    struct image_bytes sound = sound_image(), image = {.len = 0};
    struct host_file *file = NULL;
    bool is_listed = false;

    ASSERT_OK(host_file_fake_create(sound.data, sound.len, &file));
    host_file_fake_keep(file, (void **)&image.data, &image.len);
    ASSERT_OK(qcow_snapshot_create(file, "one", 0));
    host_file_destroy(file);
    image_fixture_finish(&sound);
    try_snapshots(&image, &is_listed);
    assert_true(is_listed);

    uint64_t table = image_fixture_get(&image, AT_SNAPSHOTS_OFFSET);
    for (size_t i = 0; i < ARRAY_COUNT(entries); i++) {
        struct image_bytes broken = image_fixture_copy(&image);
        put32(&broken, table + 8, entries[i]);
        try_snapshots(&broken, &is_listed);
        assert_true(entries[i] <= 0x400000 || !is_listed);
        image_fixture_finish(&broken);
    }
    for (size_t i = 0; i < ARRAY_COUNT(offsets); i++) {
        struct image_bytes broken = image_fixture_copy(&image);
        image_fixture_put(&broken, table, offsets[i]);
        try_snapshots(&broken, &is_listed);
        image_fixture_finish(&broken);
    }
    image_fixture_finish(&image);
}

/* "refcount_table_clusters = 0": QEMU once divided by it, or wrote counts to cluster 0. */
TEST(an_image_without_counts_is_refused)
{
    struct image_bytes image = sound_image();

    put32(&image, AT_TABLE_CLUSTERS, 0);
    assert_refused(&image);
}

/* Refused, found corrupt at a write, or written without giving anything a second use. */
static void assert_nothing_is_handed_out_twice(struct image_bytes *image)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;
    uint8_t data[512] = {1};
    struct iovec iov = {data, sizeof(data)};
    struct image_bytes after = {.len = 0};

    ASSERT_OK(host_file_fake_create(image->data, image->len, &file));
    host_file_fake_keep(file, (void **)&after.data, &after.len);
    struct err *err = qcow_image_open(file, false, &disk);
    if (err == NULL) {
        for (uint64_t at = 0; at < disk->virtual_bytes; at += 4096)
            err_free(block_write(disk, &iov, 1, at));
        err_free(block_close(disk));
    }
    err_free(err);
    assert_memory_equal(after.data, image->data, AT_INCOMPATIBLE);
    struct qcow_verdict verdict = qcow_checker_run(after.data, after.len);
    if (verdict.hazards > 0)
        fail_msg("%s", verdict.first);
    image_fixture_finish(&after);
    image_fixture_finish(image);
}

/* Launchpad 1728615, and cloud-hypervisor 8358: a new refcount block, or data, at offset 0. */
TEST(the_header_is_never_handed_out)
{
    struct image_bytes image = sound_image();

    /* All counts are zero: whoever believes them takes cluster 0 first. */
    memset(image.data + image_fixture_block(&image), 0, 4096);
    assert_nothing_is_handed_out_twice(&image);

    image = sound_image();
    image_fixture_put(&image, image_fixture_get(&image, AT_TABLE_OFFSET), 0);
    assert_nothing_is_handed_out_twice(&image);
}

/* QEMU 7.2 marks such an image corrupt at the first write. The bit is cleared before that here. */
TEST(the_bitmaps_bit_without_bitmaps_does_no_harm)
{
    struct image_bytes image = sound_image();
    struct host_file *file = NULL;
    struct block *disk = NULL;
    struct image_bytes after = {.len = 0};
    uint8_t data[512] = {1};
    struct iovec iov = {data, sizeof(data)};

    image_fixture_put(&image, AT_AUTOCLEAR, 1);
    ASSERT_OK(host_file_fake_create(image.data, image.len, &file));
    host_file_fake_keep(file, (void **)&after.data, &after.len);
    struct err *err = qcow_image_open(file, false, &disk);
    if (err == NULL) {
        ASSERT_OK(block_write(disk, &iov, 1, 0));
        ASSERT_OK(block_close(disk));
        assert_int_equal(image_fixture_get(&after, AT_AUTOCLEAR) & 1, 0);
        assert_int_equal(image_fixture_get(&after, AT_INCOMPATIBLE) & 2, 0);
    }
    err_free(err);
    image_fixture_finish(&after);
    image_fixture_finish(&image);
}

static void store(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");

    if (file == NULL) {
        fail_msg("can not write %s", path);
        return;
    }
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* An image that names a backing file, or what its writer hopes is taken for one. */
static struct image_bytes image_that_names(const char *name, const char *format)
{
    return image_fixture_make(&(struct qcow_create_options){.virtual_bytes = 256 << 10,
                                                            .version = 3,
                                                            .cluster_bits = 12,
                                                            .backing_name = name,
                                                            .backing_format = format});
}

/* CVE-2024-32498, CVE-2024-4467: the name of an external data file leads to a file of the host. */
static struct image_bytes image_with_data_file(const char *name)
{
    struct image_bytes image = sound_image();
    size_t len = strlen(name);

    image_fixture_put(&image, AT_INCOMPATIBLE, 4);
    put32(&image, AT_EXTENSIONS, 0x44415441);
    put32(&image, AT_EXTENSIONS + 4, (uint32_t)len);
    memcpy(image.data + AT_EXTENSIONS + 8, name, len);
    memset(image.data + AT_EXTENSIONS + 8 + len, 0, 16);
    return image;
}

static void try_to_reach(const struct image_bytes *image)
{
    char path[256];
    struct block *disk = NULL;

    (void)snprintf(path, sizeof(path), "%s/vm.qcow2", folder);
    store(path, image->data, image->len);
    for (int access = 0; access < 2; access++) {
        struct err *err = disk_image_open(
            path, "qcow2", access == 0 ? DISK_IMAGE_READ_ONLY : DISK_IMAGE_WRITABLE, &disk);
        assert_non_null(err);
        err_free(err);
    }
    struct host_file *file = NULL;
    struct qcow_check_report report;
    ASSERT_OK(host_file_from_fd(open(path, O_RDWR | O_CLOEXEC), path, &file));
    err_free(qcow_check(file, NULL, &report));
    host_file_destroy(file);
}

/* CVE-2024-32498, CVE-2024-4467, CVE-2026-27211: whatever an image names, nothing outside its
 * folder is opened, not even to look at it. The kernel tells of every opening. */
TEST(no_file_of_the_host_is_opened_by_name)
{
    static const char *const patterns[] = {
        "%s/secret",
        "../secrets/secret",
        "./../secrets/secret",
        "sub/../../secrets/secret",
        "file:%s/secret",
        "json:{\"driver\":\"file\",\"filename\":\"%s/secret\"}",
        "link",
        "nbd+unix:///?socket=%s/secret",
        "host_device:%s/secret",
        "vvfat:%s",
        "link-to-folder/secret",
    };
    char name[512], path[256], events[4096];
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    assert_true(watch >= 0);
    (void)snprintf(path, sizeof(path), "%s/link", folder);
    (void)snprintf(name, sizeof(name), "%s/secret", secret_folder);
    assert_int_equal(symlink(name, path), 0);
    (void)snprintf(path, sizeof(path), "%s/link-to-folder", folder);
    assert_int_equal(symlink(secret_folder, path), 0);
    (void)snprintf(path, sizeof(path), "%s/sub", folder);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_true(inotify_add_watch(watch, secret_folder, IN_OPEN | IN_ACCESS | IN_MODIFY) >= 0);
    for (size_t i = 0; i < ARRAY_COUNT(patterns); i++) {
        char *at = strstr(patterns[i], "%s");
        int before = at == NULL ? (int)strlen(patterns[i]) : (int)(at - patterns[i]);
        (void)snprintf(name, sizeof(name), "%.*s%s%s", before, patterns[i],
                       at == NULL ? "" : secret_folder, at == NULL ? "" : at + 2);
        struct image_bytes image = image_that_names(name, i % 2 == 0 ? "raw" : "qcow2");
        try_to_reach(&image);
        image_fixture_finish(&image);
        image = image_with_data_file(name);
        try_to_reach(&image);
        image_fixture_finish(&image);
    }
    assert_true(read(watch, events, sizeof(events)) < 0);

    /* The watch would have told. */
    (void)snprintf(path, sizeof(path), "%s/secret", secret_folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_true(read(watch, events, sizeof(events)) > 0);
    (void)close(watch);
}

/* A FIFO would stop whoever opens it, and a device may do anything. */
TEST(only_files_are_opened_as_backing_files)
{
    static const char *const names[] = {"fifo", "sub", "missing", "vm.qcow2"};
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/fifo", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct image_bytes image = image_that_names(names[i], "qcow2");
        try_to_reach(&image);
        image_fixture_finish(&image);
    }
}

/* CVE-2026-24708, GHSA-jmr4-g2hv-mjj6: a guest writes a qcow2 header into its raw disk. */
TEST(a_raw_disk_is_raw_whatever_the_guest_writes)
{
    char path[256];
    struct block *disk = NULL;
    struct image_bytes image = image_that_names("../secrets/secret", "raw");
    uint8_t data[512];
    struct iovec iov = {data, sizeof(data)};

    (void)snprintf(path, sizeof(path), "%s/disk.raw", folder);
    store(path, image.data, image.len);
    ASSERT_OK(disk_image_open(path, "raw", DISK_IMAGE_WRITABLE, &disk));
    assert_int_equal(disk->virtual_bytes, image.len);
    ASSERT_OK(block_read(disk, &iov, 1, 0));
    assert_memory_equal(data, image.data, sizeof(data));
    ASSERT_OK(block_close(disk));
    image_fixture_finish(&image);
}

static int make_folders(void **state)
{
    char base[64] = "/tmp/qcow_known_faults_test.XXXXXX", path[256];

    (void)state;
    if (mkdtemp(base) == NULL)
        return 1;
    (void)snprintf(folder, sizeof(folder), "%s/vms", base);
    (void)snprintf(secret_folder, sizeof(secret_folder), "%s/secrets", base);
    if (mkdir(folder, 0755) != 0 || mkdir(secret_folder, 0755) != 0)
        return 1;
    (void)snprintf(path, sizeof(path), "%s/secret", secret_folder);
    store(path, SECRET, sizeof(SECRET));
    return 0;
}

static int remove_folders(void **state)
{
    char command[256];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf \"$(dirname %s)\"", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_tables_do_not_overflow),
        cmocka_unit_test(lengths_in_the_header_are_bounded),
        cmocka_unit_test(tables_lie_in_clusters_of_the_file),
        cmocka_unit_test(tables_of_snapshots_are_bounded),
        cmocka_unit_test(an_image_without_counts_is_refused),
        cmocka_unit_test(the_header_is_never_handed_out),
        cmocka_unit_test(the_bitmaps_bit_without_bitmaps_does_no_harm),
        cmocka_unit_test(no_file_of_the_host_is_opened_by_name),
        cmocka_unit_test(only_files_are_opened_as_backing_files),
        cmocka_unit_test(a_raw_disk_is_raw_whatever_the_guest_writes),
    };

    return cmocka_run_group_tests(tests, make_folders, remove_folders);
}
