/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_sharing_test.c - images whose tables and clusters internal snapshots share, judged by QEMU:
 * whatever is written to the image, its snapshots stay as they were taken, and no cluster leaks.
 *
 * FERRY_TEST_SEED selects other requests, FERRY_TEST_OPERATIONS how many between snapshots.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/disk_image.h"
#include "storage/testing/chance.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qemu_oracle.h"

#define DISK_BYTES   (6u << 20)
#define SECTOR_BYTES 512u

static struct qemu_oracle oracle;
static struct chance chance;
static unsigned planned_reads, planned_writes;

/* A disk, and what it should hold. */
struct fixture {
    const char *options;
    struct block *disk;
    uint8_t *model;
    uint8_t *buffer;
};

static void do_write(struct fixture *fixture, uint64_t offset, uint64_t len)
{
    struct iovec iov = {fixture->model + offset, len};
    bool is_planned = false;

    for (uint64_t i = 0; i < len; i++)
        fixture->model[offset + i] = (uint8_t)chance_below(&chance, 256);
    if (chance_below(&chance, 2) == 0)
        ASSERT_OK(planned_write(fixture->disk, iov.iov_base, len, offset, &is_planned));
    else
        ASSERT_OK(block_write(fixture->disk, &iov, 1, offset));
    planned_writes += is_planned;
}

static void do_discard(const struct fixture *fixture, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[SECTOR_BYTES];
    struct iovec iov = {fixture->buffer, len};

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
    uint64_t limit = chance_below(&chance, 4) == 0 ? 200000 : 9000;
    uint64_t len = (1 + chance_below(&chance, limit / SECTOR_BYTES)) * SECTOR_BYTES;
    uint64_t offset = chance_below(&chance, (DISK_BYTES - len) / SECTOR_BYTES + 1) * SECTOR_BYTES;
    bool is_planned = false;

    switch (chance_below(&chance, 12)) {
    case 0:
    case 1:
        memset(fixture->model + offset, 0, len);
        ASSERT_OK(block_write_zeroes(fixture->disk, offset, len, chance_below(&chance, 2) == 0));
        break;
    case 2: do_discard(fixture, offset, len); break;
    case 3:
    case 4: ASSERT_OK(block_flush(fixture->disk)); break;
    case 5:
        ASSERT_OK(planned_read(fixture->disk, fixture->buffer, len, offset, &is_planned));
        planned_reads += is_planned;
        assert_memory_equal(fixture->buffer, fixture->model + offset, len);
        break;
    default: do_write(fixture, offset, len);
    }
}

static void judge(const struct fixture *fixture)
{
    struct qemu_oracle_verdict verdict = qemu_oracle_judge(&oracle, fixture->model, DISK_BYTES);
    if (verdict.check != 0 || verdict.compare != 0)
        fail_msg("'%s': check %d, compare %d", fixture->options, verdict.check, verdict.compare);
}

/* Some requests, and the image is good afterwards. */
static void work(struct fixture *fixture)
{
    ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture->disk));
    for (uint64_t i = 0; i < chance_setting("FERRY_TEST_OPERATIONS", 60); i++)
        do_something(fixture);
    ASSERT_OK(block_close(fixture->disk));
    judge(fixture);
}

static void take_snapshot(const struct fixture *fixture, const char *name)
{
    char file[32];

    (void)snprintf(file, sizeof(file), "%s.raw", name);
    qemu_oracle_store(&oracle, file, fixture->model, DISK_BYTES);
    ASSERT_RUN(&oracle, "qemu-img snapshot -c %s disk.qcow2", name);
}

static void expect_snapshot(const struct fixture *fixture, const char *name)
{
    ASSERT_RUN(&oracle, "qemu-img convert -l snapshot.name=%s -f qcow2 -O raw disk.qcow2 found.raw",
               name);
    if (qemu_oracle_run(&oracle, "cmp found.raw %s.raw", name) != 0)
        fail_msg("'%s': snapshot '%s' has changed", fixture->options, name);
}

static void go_back(struct fixture *fixture, const char *name)
{
    char file[32];

    ASSERT_RUN(&oracle, "qemu-img snapshot -a %s disk.qcow2", name);
    (void)snprintf(file, sizeof(file), "%s.raw", name);
    struct image_bytes taken = qemu_oracle_load(&oracle, file);
    assert_int_equal(taken.len, DISK_BYTES);
    memcpy(fixture->model, taken.data, DISK_BYTES);
    image_fixture_finish(&taken);
}

static void try_options(const char *options, bool is_compressed)
{
    struct fixture fixture = {
        .options = options, .model = calloc(1, DISK_BYTES), .buffer = malloc(DISK_BYTES)};

    assert_true(fixture.model != NULL && fixture.buffer != NULL);
    (void)qemu_oracle_run(&oracle, "rm -f *.qcow2 *.raw");
    if (is_compressed) {
        for (uint64_t i = 0; i < DISK_BYTES / 2; i++)
            fixture.model[i] = (uint8_t)(i / 777);
        qemu_oracle_store(&oracle, "base.raw", fixture.model, DISK_BYTES);
        ASSERT_RUN(&oracle, "qemu-img convert -c -f raw -O qcow2 -o %s base.raw disk.qcow2",
                   options);
    } else {
        ASSERT_RUN(&oracle, "qemu-img create -f qcow2 -o %s disk.qcow2 %u", options, DISK_BYTES);
    }
    work(&fixture);
    take_snapshot(&fixture, "one");
    work(&fixture);
    expect_snapshot(&fixture, "one");
    take_snapshot(&fixture, "two");
    work(&fixture);
    expect_snapshot(&fixture, "one");
    expect_snapshot(&fixture, "two");
    ASSERT_RUN(&oracle, "qemu-img snapshot -d one disk.qcow2");
    work(&fixture);
    expect_snapshot(&fixture, "two");
    go_back(&fixture, "two");
    work(&fixture);
    expect_snapshot(&fixture, "two");
    ASSERT_RUN(&oracle, "qemu-img snapshot -d two disk.qcow2");
    work(&fixture);
    free(fixture.model);
    free(fixture.buffer);
}

TEST(snapshots_stay_as_they_were_while_the_image_is_written)
{
    static const char *const options[] = {
        "cluster_size=64k",
        "compat=0.10",
        "cluster_size=4k,refcount_bits=2",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=2M",
        "cluster_size=64k,preallocation=metadata",
    };

    for (size_t i = 0; i < ARRAY_COUNT(options); i++)
        try_options(options[i], false);
    assert_true(planned_reads > 50 && planned_writes > 50);
}

TEST(snapshots_share_subclusters)
{
    try_options("extended_l2=on,cluster_size=128k", false);
    try_options("extended_l2=on,cluster_size=16k", false);
}

TEST(snapshots_share_compressed_clusters)
{
    try_options("cluster_size=64k", true);
    try_options("cluster_size=4k", true);
    try_options("extended_l2=on,cluster_size=32k,compression_type=zstd", true);
}

/* A zero cluster may keep a place that a snapshot still needs. */
TEST(a_zeroed_cluster_does_not_write_where_a_snapshot_is)
{
    struct fixture fixture = {
        .options = "zeroed", .model = calloc(1, DISK_BYTES), .buffer = malloc(DISK_BYTES)};

    assert_true(fixture.model != NULL && fixture.buffer != NULL);
    (void)qemu_oracle_run(&oracle, "rm -f *.qcow2 *.raw");
    ASSERT_RUN(&oracle, "qemu-img create -f qcow2 disk.qcow2 %u", DISK_BYTES);
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -P 17 0 256k' disk.qcow2");
    memset(fixture.model, 17, 256 << 10);
    take_snapshot(&fixture, "one");
    ASSERT_RUN(&oracle, "qemu-io -f qcow2 -c 'write -z 0 128k' disk.qcow2");
    memset(fixture.model, 0, 128 << 10);
    ASSERT_OK(disk_image_open(oracle.disk, "qcow2", DISK_IMAGE_WRITABLE, &fixture.disk));
    do_write(&fixture, 4096, 512);
    ASSERT_OK(block_write_zeroes(fixture.disk, 65536, 65536, false));
    do_write(&fixture, 69632, 70000);
    ASSERT_OK(block_close(fixture.disk));
    judge(&fixture);
    expect_snapshot(&fixture, "one");
    free(fixture.model);
    free(fixture.buffer);
}

static int make_folder(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 3));
    return qemu_oracle_init(&oracle, "qcow_sharing_test");
}

static int remove_folder(void **state)
{
    (void)state;
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_stay_as_they_were_while_the_image_is_written),
        cmocka_unit_test(snapshots_share_subclusters),
        cmocka_unit_test(snapshots_share_compressed_clusters),
        cmocka_unit_test(a_zeroed_cluster_does_not_write_where_a_snapshot_is),
    };

    if (!qemu_oracle_has("qemu-img qemu-io"))
        return QEMU_ORACLE_SKIPPED;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
