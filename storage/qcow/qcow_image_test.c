/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_image_test.c - one image under several threads.
 *
 * Each sector carries a stamp (writer, serial, sector). Writers own interleaved sectors of shared
 * clusters, so that every cluster is allocated by requests that race, next to discards and flushes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define DISK_BYTES    (2u << 20)
#define SECTOR_COUNT  (DISK_BYTES / SECTOR_BYTES)
#define WRITER_COUNT  4u
#define ROUNDS        15000u
#define BACKING_STAMP ((uint64_t)1 << 62)
#define SHARED_FIRST  (SECTOR_COUNT * 3 / 4) /* everybody writes here */

struct fixture {
    struct block *disk;
    uint64_t expected[SECTOR_COUNT]; /* each element belongs to the sector's owner */
};

#define LAYER_PART ((uint64_t)4096) /* a subcluster */

/* An overlay with subclusters of 4 KiB. */
struct layer {
    struct block *disk;
    uint8_t *bytes; /* the image, while it is closed */
    size_t len;
};

struct worker {
    struct fixture *fixture;
    uint64_t number;
    bool has_failed;
};

static bool succeeds(struct err *err)
{
    bool is_ok = err == NULL;

    err_free(err);
    return is_ok;
}

/* A sector of the worker's own: every WRITER_COUNT-th, so neighbours in a cluster are others'. */
static bool own_request(struct worker *worker, uint64_t round, uint64_t random)
{
    struct fixture *fixture = worker->fixture;
    uint64_t sector = random % (SHARED_FIRST / WRITER_COUNT) * WRITER_COUNT + worker->number;
    uint8_t data[SECTOR_BYTES];
    struct iovec iov = {data, sizeof(data)};

    if (round % 3 == 0) {
        if (!succeeds(planned_read(fixture->disk, data, SECTOR_BYTES, sector * SECTOR_BYTES, NULL)))
            return false;
        return stamp_of(data) == fixture->expected[sector];
    }
    uint64_t stamp = round % 7 == 1 ? 0 : (worker->number + 1) << 40 | round << 20 | sector;
    fixture->expected[sector] = stamp;
    if (stamp == 0)
        return succeeds(
            block_write_zeroes(fixture->disk, sector * SECTOR_BYTES, SECTOR_BYTES, true));
    stamp_sector(data, stamp);
    if (round % 2 == 0)
        return succeeds(
            planned_write(fixture->disk, data, SECTOR_BYTES, sector * SECTOR_BYTES, NULL));
    return succeeds(block_write(fixture->disk, &iov, 1, sector * SECTOR_BYTES));
}

/* Overlapping writes, zeroes and discards of several clusters: a sector is whole, whoever won. */
static bool shared_request(struct worker *worker, uint64_t round, uint64_t random)
{
    struct fixture *fixture = worker->fixture;
    uint64_t count = 1 + random % 24;
    uint64_t first = SHARED_FIRST + random / 64 % (SECTOR_COUNT - SHARED_FIRST - count);
    uint8_t data[24 * SECTOR_BYTES];
    struct iovec iov = {data, (size_t)count * SECTOR_BYTES};

    switch (round % 5) {
    case 0:
        return succeeds(block_discard(fixture->disk, first * SECTOR_BYTES, count * SECTOR_BYTES));
    case 1:
        return succeeds(block_write_zeroes(fixture->disk, first * SECTOR_BYTES,
                                           count * SECTOR_BYTES, random % 2 == 0));
    case 2:
        if (!succeeds(block_read(fixture->disk, &iov, 1, first * SECTOR_BYTES)))
            return false;
        for (uint64_t i = 0; i < count; i++) {
            uint64_t stamp = stamp_of(data + i * SECTOR_BYTES);
            bool is_ours = (stamp & 0xfffff) == first + i && stamp >> 40 <= WRITER_COUNT + 1;
            if (stamp != 0 && stamp != BACKING_STAMP + first + i && !is_ours)
                return false;
        }
        return true;
    default:
        for (uint64_t i = 0; i < count; i++)
            stamp_sector(data + i * SECTOR_BYTES,
                         (worker->number + 1) << 40 | round << 20 | (first + i));
        return succeeds(block_write(fixture->disk, &iov, 1, first * SECTOR_BYTES));
    }
}

static void work(void *argument)
{
    struct worker *worker = argument;
    uint64_t random = worker->number * 7919 + 12345;

    for (uint64_t round = 0; round < ROUNDS && !worker->has_failed; round++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        bool is_ok = round % 2 == 0 ? own_request(worker, round / 2, random >> 8)
                                    : shared_request(worker, round / 2, random >> 8);
        if (random % 16 == 0)
            is_ok = is_ok && succeeds(block_flush(worker->fixture->disk));
        worker->has_failed = !is_ok;
    }
}

/* Overlapping reads and writes of one host sector may tear; the file's own lock is per request,
 * and no request here is split inside a sector. */
static void stress(unsigned cluster_bits, bool has_extended_l2, bool has_backing)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct worker workers[WRITER_COUNT] = {0};
    struct thread *threads[WRITER_COUNT];
    struct host_file *file = NULL;
    struct block *backing = NULL;
    uint8_t *bytes = NULL;
    size_t len = 0;

    assert_non_null(fixture);
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, (void **)&bytes, &len);
    ASSERT_OK(qcow_create(file, &(struct qcow_create_options){
                                    .virtual_bytes = DISK_BYTES,
                                    .version = 3,
                                    .cluster_bits = cluster_bits,
                                    .has_extended_l2 = has_extended_l2,
                                    .backing_name = has_backing ? "base" : NULL,
                                    .backing_format = "raw",
                                }));
    ASSERT_OK(qcow_image_open(file, false, &fixture->disk));
    if (has_backing) {
        ASSERT_OK(block_memory_create(DISK_BYTES, &backing));
        for (uint64_t i = 0; i < SECTOR_COUNT; i++) {
            fixture->expected[i] = BACKING_STAMP + i;
            stamp_sector(block_memory_bytes(backing) + i * SECTOR_BYTES, BACKING_STAMP + i);
        }
        qcow_image_set_backing(fixture->disk, backing);
    }

    for (unsigned i = 0; i < WRITER_COUNT; i++) {
        workers[i] = (struct worker){.fixture = fixture, .number = i};
        ASSERT_OK(thread_create(ROLE_TEST, i, work, &workers[i], &threads[i]));
    }
    for (unsigned i = 0; i < WRITER_COUNT; i++)
        thread_join(threads[i]);

    for (unsigned i = 0; i < WRITER_COUNT; i++)
        assert_false(workers[i].has_failed);
    for (uint64_t i = 0; i < SHARED_FIRST; i++) {
        uint8_t data[SECTOR_BYTES];
        struct iovec iov = {data, sizeof(data)};
        ASSERT_OK(block_read(fixture->disk, &iov, 1, i * SECTOR_BYTES));
        assert_int_equal(stamp_of(data), fixture->expected[i]);
    }
    ASSERT_OK(block_close(fixture->disk));
    struct qcow_verdict verdict = qcow_checker_run(bytes, len);
    if (verdict.errors > 0)
        fail_msg("%s", verdict.first);
    assert_int_equal(verdict.leaks, 0);
    free(bytes);
    free(fixture);
}

TEST(racing_requests_of_a_plain_image_leave_each_sector_right)
{
    stress(12, false, false);
}

TEST(racing_requests_of_an_overlay_leave_each_sector_right)
{
    stress(13, false, true);
}

TEST(racing_requests_in_large_clusters_leave_each_sector_right)
{
    stress(16, false, true);
}

TEST(racing_requests_in_subclusters_leave_each_sector_right)
{
    stress(14, true, false);
    stress(17, true, true);
}

/* Which sectors the image itself holds, one letter for each subcluster of the first cluster. */
static void kinds_of(const struct layer *layer, char out_kinds[33])
{
    uint8_t sector[SECTOR_BYTES];

    for (unsigned i = 0; i < 32; i++) {
        switch (qcow_checker_read(layer->bytes, layer->len, i * LAYER_PART, sector)) {
        case QCOW_SECTOR_DATA: out_kinds[i] = 'd'; break;
        case QCOW_SECTOR_ZERO: out_kinds[i] = 'z'; break;
        case QCOW_SECTOR_BELOW: out_kinds[i] = '.'; break;
        case QCOW_SECTOR_BROKEN: out_kinds[i] = '!'; break;
        }
    }
    out_kinds[32] = '\0';
}

static void open_layer(struct layer *layer)
{
    struct block *backing = NULL;
    struct host_file *file = NULL;

    ASSERT_OK(host_file_fake_create(layer->bytes, layer->len, &file));
    if (layer->bytes == NULL)
        ASSERT_OK(qcow_create(file, &(struct qcow_create_options){.virtual_bytes = DISK_BYTES,
                                                                  .version = 3,
                                                                  .cluster_bits = 17,
                                                                  .has_extended_l2 = true,
                                                                  .backing_name = "base",
                                                                  .backing_format = "raw"}));
    free(layer->bytes);
    host_file_fake_keep(file, (void **)&layer->bytes, &layer->len);
    ASSERT_OK(qcow_image_open(file, false, &layer->disk));
    ASSERT_OK(block_memory_create(DISK_BYTES, &backing));
    qcow_image_set_backing(layer->disk, backing);
}

/* Closes the image, so that it can be looked at, and opens it again. */
static void expect_kinds(struct layer *layer, const char *kinds, unsigned cluster_count)
{
    char found[33];

    ASSERT_OK(block_close(layer->disk));
    kinds_of(layer, found);
    assert_string_equal(found, kinds);
    struct qcow_verdict verdict = qcow_checker_run(layer->bytes, layer->len);
    assert_int_equal(verdict.errors + verdict.leaks, 0);
    assert_int_equal(divide_up(layer->len, 1 << 17), cluster_count);
    open_layer(layer);
}

TEST(requests_touch_only_their_subclusters)
{
    struct layer layer = {.bytes = NULL};
    uint8_t data[8192] = {1};
    struct iovec sector = {data, 512}, two_parts = {data, 8192};

    open_layer(&layer);
    expect_kinds(&layer, "................................", 4);
    ASSERT_OK(block_write(layer.disk, &two_parts, 1, 4096));
    expect_kinds(&layer, ".dd.............................", 6); /* and an L2 table */
    ASSERT_OK(block_write(layer.disk, &sector, 1, 31 * LAYER_PART + 512));
    expect_kinds(&layer, ".dd............................d", 6);
    ASSERT_OK(block_write_zeroes(layer.disk, 2 * LAYER_PART, 8192, true));
    expect_kinds(&layer, ".dzz...........................d", 6);
    ASSERT_OK(block_discard(layer.disk, 0, 2 * LAYER_PART));
    expect_kinds(&layer, ".zzz...........................d", 6);
    /* Nothing is left in the cluster, so that another can have its place. */
    ASSERT_OK(block_write_zeroes(layer.disk, 31 * LAYER_PART, 4096, true));
    ASSERT_OK(block_flush(layer.disk));
    ASSERT_OK(block_write(layer.disk, &sector, 1, 1 << 20));
    expect_kinds(&layer, ".zzz...........................z", 6);
    ASSERT_OK(block_write(layer.disk, &sector, 1, 2 * LAYER_PART + 1024));
    expect_kinds(&layer, ".zdz...........................z", 7);
    ASSERT_OK(block_close(layer.disk));
    free(layer.bytes);
}

/* The end of the disk, in the middle of a subcluster and of a cluster of many. */
TEST(zeros_end_with_the_disk)
{
    const uint64_t bytes = 3 * MIB + 1536;
    uint8_t data[1536], read[1536];
    struct iovec iov = {data, sizeof(data)}, read_iov = {read, sizeof(read)};

    for (unsigned may_unmap = 0; may_unmap < 2; may_unmap++) {
        struct host_file *file = NULL;
        struct block *disk = NULL;
        ASSERT_OK(host_file_fake_create(NULL, 0, &file));
        ASSERT_OK(qcow_create(file, &(struct qcow_create_options){.virtual_bytes = bytes,
                                                                  .version = 3,
                                                                  .cluster_bits = 17,
                                                                  .has_extended_l2 = true}));
        ASSERT_OK(qcow_image_open(file, false, &disk));
        memset(data, 7, sizeof(data));
        ASSERT_OK(block_write(disk, &iov, 1, 3 * MIB));
        for (uint64_t len = 512; len <= sizeof(data); len += 512) {
            ASSERT_OK(block_write_zeroes(disk, bytes - len, len, may_unmap != 0));
            ASSERT_OK(block_discard(disk, bytes - len, len));
            memset(data + sizeof(data) - len, 0, len);
            ASSERT_OK(block_read(disk, &read_iov, 1, 3 * MIB));
            assert_memory_equal(read, data, sizeof(data));
        }
        ASSERT_OK(block_close(disk));
    }
}

TEST(a_sealed_image_is_clean_and_refuses_writes)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;
    uint8_t data[SECTOR_BYTES] = {1};
    struct iovec iov = {data, sizeof(data)};

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(qcow_create(file, &(struct qcow_create_options){.virtual_bytes = DISK_BYTES,
                                                              .version = 3,
                                                              .cluster_bits = 16}));
    ASSERT_OK(qcow_image_open(file, false, &disk));
    ASSERT_OK(block_write(disk, &iov, 1, 0));
    ASSERT_OK(qcow_image_seal(disk));
    uint64_t operations = host_file_fake_operations(file);

    assert_fails(block_write(disk, &iov, 1, 0), ERR_STATE);
    assert_fails(block_discard(disk, 0, DISK_BYTES), ERR_STATE);
    ASSERT_OK(block_flush(disk));
    assert_int_equal(host_file_fake_operations(file), operations);
    ASSERT_OK(block_close(disk));
}

TEST(a_discard_of_a_whole_empty_disk_writes_nothing)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    ASSERT_OK(qcow_create(file, &(struct qcow_create_options){.virtual_bytes = (uint64_t)1 << 40,
                                                              .version = 3,
                                                              .cluster_bits = 16}));
    ASSERT_OK(qcow_image_open(file, false, &disk));
    uint64_t operations = host_file_fake_operations(file);

    ASSERT_OK(block_discard(disk, 0, (uint64_t)1 << 40));
    ASSERT_OK(block_write_zeroes(disk, 0, (uint64_t)1 << 40, true));
    ASSERT_OK(block_flush(disk));
    assert_int_equal(host_file_fake_operations(file), operations);
    ASSERT_OK(block_close(disk));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(racing_requests_of_a_plain_image_leave_each_sector_right),
        cmocka_unit_test(racing_requests_of_an_overlay_leave_each_sector_right),
        cmocka_unit_test(racing_requests_in_large_clusters_leave_each_sector_right),
        cmocka_unit_test(racing_requests_in_subclusters_leave_each_sector_right),
        cmocka_unit_test(requests_touch_only_their_subclusters),
        cmocka_unit_test(zeros_end_with_the_disk),
        cmocka_unit_test(a_sealed_image_is_clean_and_refuses_writes),
        cmocka_unit_test(a_discard_of_a_whole_empty_disk_writes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
