/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_oracle_test.c - random operations on images of many shapes, judged by QEMU's tools: each
 * image must pass `qemu-img check` without a leak and hold what a plain array holds.
 *
 * FERRY_TEST_SEED selects other operations, FERRY_TEST_OPERATIONS how many for each shape.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/disk_image.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_create.h"
#include "storage/testing/chance.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qemu_oracle.h"

#define DISK_BYTES   ((8u << 20) + 1536)
#define SECTOR_BYTES 512u
#define REQUEST_MAX  (300u << 10)

static struct qemu_oracle oracle;
static struct chance chance;

enum backing { BACKING_NONE, BACKING_RAW, BACKING_COMPRESSED, BACKING_ZSTD_SHORT, BACKING_COUNT };

struct shape {
    unsigned cluster_bits;
    unsigned version;
    enum backing backing;
    const char *qemu_options; /* NULL: made by us */
};

struct fixture {
    struct shape shape;
    struct block *disk;
    uint8_t *model;
    uint8_t *buffer;
};

/* Bases hold text that compresses, noise that does not, and holes. */
static void make_base(const struct fixture *fixture)
{
    size_t base_bytes = fixture->shape.backing == BACKING_ZSTD_SHORT ? 3u << 20 : DISK_BYTES;

    memset(fixture->model, 0, DISK_BYTES);
    if (fixture->shape.backing == BACKING_NONE)
        return;
    for (size_t at = 0; at < base_bytes; at++) {
        size_t stripe = at / 50000 % 4;
        fixture->model[at] = stripe == 0   ? 0
                             : stripe == 1 ? (uint8_t)chance_below(&chance, 256)
                                           : (uint8_t)(at / 700);
    }
    qemu_oracle_store(&oracle, "base.raw", fixture->model, base_bytes);
    if (fixture->shape.backing == BACKING_COMPRESSED)
        ASSERT_RUN(&oracle, "qemu-img convert -f raw -O qcow2 -c base.raw base.qcow2");
    if (fixture->shape.backing == BACKING_ZSTD_SHORT)
        ASSERT_RUN(&oracle,
                   "qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd,cluster_size=32k "
                   "base.raw base.qcow2");
}

static void make_ours(const struct shape *shape, const char *backing_name,
                      const char *backing_format)
{
    struct qcow_create_options options = {
        .virtual_bytes = DISK_BYTES,
        .version = shape->version,
        .cluster_bits = shape->cluster_bits,
        .backing_name = backing_name,
        .backing_format = backing_format,
    };
    struct host_file *file = NULL;

    ASSERT_OK(host_file_from_fd(open(oracle.disk, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644),
                                oracle.disk, &file));
    ASSERT_OK(qcow_create(file, &options));
    host_file_destroy(file);
}

static void make_disk(const struct shape *shape)
{
    const char *name = shape->backing == BACKING_NONE  ? NULL
                       : shape->backing == BACKING_RAW ? "base.raw"
                                                       : "base.qcow2";
    const char *format = shape->backing == BACKING_RAW ? "raw" : "qcow2";

    if (shape->qemu_options == NULL)
        make_ours(shape, name, format);
    else if (name == NULL)
        ASSERT_RUN(&oracle, "qemu-img create -f qcow2 -o cluster_size=%u,%s disk.qcow2 %u",
                   1u << shape->cluster_bits, shape->qemu_options, DISK_BYTES);
    else
        ASSERT_RUN(&oracle,
                   "qemu-img create -f qcow2 -b %s -F %s -o cluster_size=%u,%s disk.qcow2 %u", name,
                   format, 1u << shape->cluster_bits, shape->qemu_options, DISK_BYTES);
}

static void judge(const struct fixture *fixture)
{
    struct qemu_oracle_verdict verdict = qemu_oracle_judge(&oracle, fixture->model, DISK_BYTES);
    if (verdict.check != 0 || verdict.compare != 0)
        fail_msg("clusters of %u, version %u, backing %d, '%s': check %d, compare %d",
                 1u << fixture->shape.cluster_bits, fixture->shape.version,
                 (int)fixture->shape.backing,
                 fixture->shape.qemu_options == NULL ? "ours" : fixture->shape.qemu_options,
                 verdict.check, verdict.compare);
}

static uint64_t random_range(uint64_t *out_len)
{
    uint64_t limit = chance_below(&chance, 4) == 0 ? REQUEST_MAX : 9000;
    uint64_t len = (1 + chance_below(&chance, limit / SECTOR_BYTES)) * SECTOR_BYTES;
    uint64_t offset = chance_below(&chance, (DISK_BYTES - len) / SECTOR_BYTES + 1) * SECTOR_BYTES;

    if (chance_below(&chance, 12) == 0)
        offset = DISK_BYTES - len;
    *out_len = len;
    return offset;
}

static void do_write(struct fixture *fixture, uint64_t offset, uint64_t len)
{
    struct iovec iovs[3];
    size_t first = (size_t)chance_below(&chance, len);
    size_t second = (size_t)chance_below(&chance, len - first);

    for (uint64_t i = 0; i < len; i += 8) {
        uint64_t value = chance_below(&chance, UINT64_MAX);
        memcpy(fixture->model + offset + i, &value, MIN(len - i, (uint64_t)8));
    }
    iovs[0] = (struct iovec){fixture->model + offset, first};
    iovs[1] = (struct iovec){fixture->model + offset + first, second};
    iovs[2] =
        (struct iovec){fixture->model + offset + first + second, (size_t)len - first - second};
    if (chance_below(&chance, 2) == 0)
        ASSERT_OK(planned_write(fixture->disk, fixture->model + offset, len, offset, NULL));
    else
        ASSERT_OK(block_write(fixture->disk, iovs, 3, offset));
}

static void do_read(const struct fixture *fixture, uint64_t offset, uint64_t len)
{
    ASSERT_OK(planned_read(fixture->disk, fixture->buffer, len, offset, NULL));
    assert_memory_equal(fixture->buffer, fixture->model + offset, len);
}

/* A discarded sector holds zeros or what it held. */
static void do_discard(const struct fixture *fixture, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[SECTOR_BYTES];
    struct iovec iov = {fixture->buffer, (size_t)len};

    ASSERT_OK(block_discard(fixture->disk, offset, len));
    ASSERT_OK(block_read(fixture->disk, &iov, 1, offset));
    for (uint64_t i = 0; i < len; i += SECTOR_BYTES) {
        if (memcmp(fixture->buffer + i, zeroes, SECTOR_BYTES) == 0)
            memset(fixture->model + offset + i, 0, SECTOR_BYTES);
        else
            assert_memory_equal(fixture->buffer + i, fixture->model + offset + i, SECTOR_BYTES);
    }
}

static void do_something(struct fixture *fixture)
{
    uint64_t len, offset = random_range(&len);

    switch (chance_below(&chance, 16)) {
    case 0:
    case 1:
        memset(fixture->model + offset, 0, len);
        ASSERT_OK(block_write_zeroes(fixture->disk, offset, len, chance_below(&chance, 2) == 0));
        break;
    case 2:
    case 3: do_discard(fixture, offset, len); break;
    case 4:
    case 5: ASSERT_OK(block_flush(fixture->disk)); break;
    case 6:
        ASSERT_OK(block_close(fixture->disk));
        ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture->disk));
        break;
    case 7:
    case 8: do_read(fixture, offset, len); break;
    default: do_write(fixture, offset, len);
    }
}

static void try_shape(const struct shape *shape)
{
    struct fixture fixture = {
        .shape = *shape, .model = malloc(DISK_BYTES + 8), .buffer = malloc(DISK_BYTES)};
    uint64_t operations = chance_setting("FERRY_TEST_OPERATIONS", 70);

    assert_true(fixture.model != NULL && fixture.buffer != NULL);
    (void)qemu_oracle_run(&oracle, "rm -f *.qcow2 *.raw");
    make_base(&fixture);
    make_disk(shape);
    ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture.disk));
    for (uint64_t i = 0; i < operations; i++)
        do_something(&fixture);
    for (uint64_t at = 0; at < DISK_BYTES; at += REQUEST_MAX)
        do_read(&fixture, at, MIN(REQUEST_MAX, DISK_BYTES - at));
    ASSERT_OK(block_close(fixture.disk));
    judge(&fixture);

    /* QEMU writes the image, then we go on. */
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -P 65 3000k 100k' -c 'write -z 100k 300k' "
                        "-c 'write -P 66 5001k 3k' -c 'write -z -u 3010k 4k' disk.qcow2");
    memset(fixture.model + 3000 * KIB, 65, 100 * KIB);
    memset(fixture.model + 100 * KIB, 0, 300 * KIB);
    memset(fixture.model + 5001 * KIB, 66, 3 * KIB);
    memset(fixture.model + 3010 * KIB, 0, 4 * KIB);
    ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture.disk));
    for (uint64_t i = 0; i < operations / 4; i++)
        do_something(&fixture);
    ASSERT_OK(block_close(fixture.disk));
    judge(&fixture);
    free(fixture.model);
    free(fixture.buffer);
}

TEST(images_made_here_satisfy_qemu)
{
    static const unsigned cluster_bits[] = {9, 12, 16, 21};

    for (size_t i = 0; i < ARRAY_COUNT(cluster_bits); i++)
        for (unsigned version = 2; version <= 3; version++)
            for (int backing = 0; backing < BACKING_COUNT; backing++)
                try_shape(&(struct shape){cluster_bits[i], version, (enum backing)backing, NULL});
}

TEST(images_made_by_qemu_satisfy_it_after_we_wrote_them)
{
    static const struct shape shapes[] = {
        {16, 2, BACKING_NONE, "compat=0.10"},
        {16, 3, BACKING_NONE, "compat=1.1,refcount_bits=1"},
        {12, 3, BACKING_RAW, "refcount_bits=2"},
        {12, 3, BACKING_COMPRESSED, "refcount_bits=8,lazy_refcounts=on"},
        {16, 3, BACKING_NONE, "refcount_bits=64,preallocation=metadata"},
        {16, 3, BACKING_NONE, "preallocation=falloc"},
        {9, 3, BACKING_NONE, "refcount_bits=32"},
        {21, 3, BACKING_COMPRESSED, "compression_type=zstd"},
        {14, 3, BACKING_RAW, "extended_l2=on"},
        {16, 3, BACKING_NONE, "extended_l2=on,preallocation=metadata"},
        {17, 3, BACKING_COMPRESSED, "extended_l2=on"},
        {17, 3, BACKING_NONE, "extended_l2=on,lazy_refcounts=on"},
        {21, 3, BACKING_ZSTD_SHORT, "extended_l2=on,refcount_bits=8"},
    };

    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++)
        try_shape(&shapes[i]);
}

/* Compressed clusters in the image itself are read, shared sectors and all, and replaced. */
TEST(compressed_images_are_written_and_satisfy_qemu)
{
    static const char *const options[] = {"compat=0.10", "compression_type=zstd", "cluster_size=4k",
                                          "cluster_size=2M", "extended_l2=on"};

    for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
        struct fixture fixture = {.shape = {16, 3, BACKING_RAW, options[i]},
                                  .model = malloc(DISK_BYTES + 8),
                                  .buffer = malloc(DISK_BYTES)};
        assert_true(fixture.model != NULL && fixture.buffer != NULL);
        (void)qemu_oracle_run(&oracle, "rm -f *.qcow2 *.raw");
        make_base(&fixture);
        ASSERT_RUN(&oracle, "qemu-img convert -f raw -O qcow2 -c -o %s base.raw disk.qcow2",
                   options[i]);
        ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture.disk));
        for (uint64_t at = 0; at < DISK_BYTES; at += REQUEST_MAX)
            do_read(&fixture, at, MIN(REQUEST_MAX, DISK_BYTES - at));
        for (uint64_t op = 0; op < chance_setting("FERRY_TEST_OPERATIONS", 100); op++)
            do_something(&fixture);
        ASSERT_OK(block_close(fixture.disk));
        judge(&fixture);
        free(fixture.model);
        free(fixture.buffer);
    }
}

TEST(qemu_img_refuses_a_disk_that_is_in_use)
{
    struct fixture fixture = {.disk = NULL};

    (void)qemu_oracle_run(&oracle, "rm -f *.qcow2 *.raw");
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 disk.qcow2 %u", DISK_BYTES);
    ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture.disk));
    ASSERT_RUN(&oracle, "qemu-img info -f qcow2 disk.qcow2 2>&1 | grep -q 'Failed to get.*lock'");
    ASSERT_RUN(&oracle, "qemu-img info -U -f qcow2 disk.qcow2");
    ASSERT_OK(block_close(fixture.disk));
    ASSERT_RUN(&oracle, "qemu-img info -f qcow2 disk.qcow2");
}

TEST(layers_of_a_switched_disk_satisfy_qemu)
{
    struct fixture fixture = {.shape = {16, 3, BACKING_COMPRESSED, ""},
                              .model = malloc(DISK_BYTES + 8),
                              .buffer = malloc(DISK_BYTES)};
    char path[160], *overlay = NULL;

    assert_true(fixture.model != NULL && fixture.buffer != NULL);
    (void)qemu_oracle_run(&oracle, "rm -f *.qcow2 *.raw");
    make_base(&fixture);
    make_disk(&(struct shape){16, 3, BACKING_COMPRESSED, "compat=1.1"});
    ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture.disk));
    (void)snprintf(path, sizeof(path), "%s", oracle.disk);
    for (int layer = 0; layer < 4; layer++) {
        for (int i = 0; i < 30; i++)
            do_write(&fixture, chance_below(&chance, DISK_BYTES / 1024) * 1024, 1024);
        ASSERT_OK(disk_image_next_overlay(path, &overlay));
        ASSERT_OK(disk_image_create_overlay(overlay, path, "qcow2", DISK_BYTES));
        ASSERT_OK(disk_image_switch(&fixture.disk, path, "qcow2", overlay));
        ASSERT_RUN(&oracle, "qemu-img check -U -f qcow2 %s", path);
        (void)snprintf(path, sizeof(path), "%s", overlay);
        free(overlay);
    }
    do_write(&fixture, 4096, 8192);
    ASSERT_OK(block_close(fixture.disk));

    qemu_oracle_store(&oracle, "model.raw", fixture.model, DISK_BYTES);
    ASSERT_RUN(&oracle, "qemu-img check -f qcow2 %s", path);
    ASSERT_RUN(&oracle, "qemu-img compare -f qcow2 -F raw %s model.raw", path);
    free(fixture.model);
    free(fixture.buffer);
}

static int make_folder(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 20240611));
    return qemu_oracle_init(&oracle, "qcow_oracle_test");
}

static int remove_folder(void **state)
{
    (void)state;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_made_here_satisfy_qemu),
        cmocka_unit_test(images_made_by_qemu_satisfy_it_after_we_wrote_them),
        cmocka_unit_test(compressed_images_are_written_and_satisfy_qemu),
        cmocka_unit_test(qemu_img_refuses_a_disk_that_is_in_use),
        cmocka_unit_test(layers_of_a_switched_disk_satisfy_qemu),
    };

    if (!qemu_oracle_has("qemu-img qemu-io"))
        return QEMU_ORACLE_SKIPPED;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
