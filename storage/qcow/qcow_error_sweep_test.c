/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_error_sweep_test.c - what if a host operation fails?
 *
 * The same requests run again and again; each time one host operation fails, the next one in the
 * next run: refused, or with half of it written and no space for the rest. The bytes of a failed
 * request are old or new and all others as they were, and afterwards the independent checker must
 * find no error in the image. A fault that nobody hears of, because what failed was tried again,
 * may leave no trace at all.
 *
 * FERRY_TEST_SEED selects other requests; FERRY_TEST_EVERY=1 fails every operation, not a sample.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/chance.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/qemu_oracle.h"
#include "storage/testing/sector_stamp.h"

#define OPERATIONS    70u
#define BACKING_STAMP ((uint64_t)1 << 62)
#define NEVER         UINT64_MAX

struct shape {
    const char *name;
    struct qcow_create_options options;
    uint64_t backing_bytes; /* 0: none */
    unsigned request_sectors_max;
    const char *qemu_command; /* run on the filled image disk.qcow2, which it may replace */
};

/* What a sector may hold when no flush has succeeded since, the newest last. */
#define VERSIONS_MAX (2 * OPERATIONS + 1)
struct sector_versions {
    uint64_t stamps[VERSIONS_MAX];
    unsigned count;
};

struct run {
    const struct shape *shape;
    struct host_file *file;
    struct block *disk;
    struct sector_versions *sectors; /* owned; what may be found without a flush */
    uint64_t *now;                   /* owned; what reads must give */
    uint8_t *bytes;                  /* owned; the file, once it is closed */
    size_t len;
    uint64_t errors_heard;
    struct chance chance;
};

static struct qemu_oracle oracle;
static uint64_t runs_made, faults_unheard;

static size_t sector_count(const struct shape *shape)
{
    return (size_t)(shape->options.virtual_bytes / SECTOR_BYTES);
}

static uint64_t below(const struct shape *shape, size_t sector)
{
    return sector * SECTOR_BYTES < shape->backing_bytes ? BACKING_STAMP + sector : 0;
}

static struct block *make_backing(const struct shape *shape)
{
    struct block *backing = NULL;

    if (shape->backing_bytes == 0)
        return NULL;
    ASSERT_OK(block_memory_create(shape->backing_bytes, &backing));
    for (size_t i = 0; i < shape->backing_bytes / SECTOR_BYTES; i++)
        stamp_sector(block_memory_bytes(backing) + i * SECTOR_BYTES, BACKING_STAMP + i);
    return backing;
}

static void forget_versions(struct run *run, size_t sector)
{
    run->sectors[sector].stamps[0] = run->now[sector];
    run->sectors[sector].count = 1;
}

/* One more that may be found after a flush that failed. */
static void add_version(struct run *run, size_t sector, uint64_t stamp)
{
    struct sector_versions *versions = &run->sectors[sector];

    run->now[sector] = stamp;
    assert_true(versions->count < VERSIONS_MAX);
    versions->stamps[versions->count++] = stamp;
}

static struct err *do_write(struct run *run, size_t first, size_t count, uint64_t stamp)
{
    uint8_t *data = malloc(count * SECTOR_BYTES);
    struct iovec iov = {data, count * SECTOR_BYTES};

    assert_non_null(data);
    for (size_t i = 0; i < count; i++)
        stamp_sector(data + i * SECTOR_BYTES, stamp + i);
    /* Planned or not, both ways are used by a running machine. */
    struct err *err = first % 2 == 0
                          ? planned_write(run->disk, data, iov.iov_len, first * SECTOR_BYTES, NULL)
                          : block_write(run->disk, &iov, 1, first * SECTOR_BYTES);
    free(data);
    return err;
}

/* A sector of a request that failed half-way: each part old or new. Then it is written again, as a
 * guest would, because a mixture has no stamp. */
static void mend_torn(struct run *run, size_t sector, const uint8_t *data, uint64_t new_stamp)
{
    for (size_t i = 0; i < SECTOR_BYTES; i += 4) {
        uint64_t old = run->now[sector];
        if (memcmp(data + i, (uint8_t *)&old + i % 8, 4) != 0 &&
            memcmp(data + i, (uint8_t *)&new_stamp + i % 8, 4) != 0)
            fail_msg("%s: sector %zu is neither 0x%llx nor 0x%llx nor a mixture of them",
                     run->shape->name, sector, (unsigned long long)old,
                     (unsigned long long)new_stamp);
    }
    ASSERT_OK(do_write(run, sector, 1, new_stamp));
}

/* After a request that failed its sectors are old or new; after a discard, old or zeros. */
static void learn(struct run *run, size_t first, size_t count, uint64_t stamp)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t data[SECTOR_BYTES];
        struct iovec iov = {data, sizeof(data)};
        uint64_t old = run->now[first + i], new_stamp = stamp == 0 ? 0 : stamp + i;
        ASSERT_OK(block_read(run->disk, &iov, 1, (first + i) * SECTOR_BYTES));
        bool is_old = stamp_of(data) == old;
        if (!is_old && stamp_of(data) != new_stamp)
            mend_torn(run, first + i, data, new_stamp);
        add_version(run, first + i, new_stamp);
        if (is_old)
            add_version(run, first + i, old);
    }
}

static void do_flush(struct run *run)
{
    struct err *err = block_flush(run->disk);

    if (err == NULL)
        for (size_t i = 0; i < sector_count(run->shape); i++)
            forget_versions(run, i);
    else
        run->errors_heard++;
    err_free(err);
}

static void do_request(struct run *run, unsigned step)
{
    size_t count = 1 + chance_below(&run->chance, run->shape->request_sectors_max);
    size_t first = chance_below(&run->chance, sector_count(run->shape) - count + 1);
    uint64_t kind = chance_below(&run->chance, 10),
             stamp = kind > 3 ? (uint64_t)(step + 1) << 20 : 0;
    bool may_unmap = chance_below(&run->chance, 2) == 0, is_discard = kind == 1;
    struct err *err;

    if (kind == 3) {
        do_flush(run);
        return;
    }
    if (is_discard)
        err = block_discard(run->disk, first * SECTOR_BYTES, count * SECTOR_BYTES);
    else if (kind < 3)
        err = block_write_zeroes(run->disk, first * SECTOR_BYTES, count * SECTOR_BYTES, may_unmap);
    else
        err = do_write(run, first, count, stamp);
    if (err != NULL)
        run->errors_heard++;
    if (err != NULL || is_discard)
        learn(run, first, count, stamp);
    for (size_t i = 0; err == NULL && !is_discard && i < count; i++)
        add_version(run, first + i, stamp == 0 ? 0 : stamp + i);
    err_free(err);
}

/* The start of all runs of a shape: half filled, and through QEMU's hands if it is to be. */
static void make_start(const struct shape *shape, uint8_t **out_bytes, size_t *out_len,
                       uint64_t *sectors)
{
    struct run run = {.shape = shape};

    ASSERT_OK(host_file_fake_create(NULL, 0, &run.file));
    host_file_fake_keep(run.file, (void **)&run.bytes, &run.len);
    ASSERT_OK(qcow_create(run.file, &shape->options));
    ASSERT_OK(qcow_image_open(run.file, false, &run.disk));
    for (size_t i = 0; i < sector_count(shape); i++)
        sectors[i] = below(shape, i);
    struct block *backing = make_backing(shape);
    if (backing != NULL)
        qcow_image_set_backing(run.disk, backing);
    for (size_t first = 0; first + 8 < sector_count(shape); first += 24) {
        ASSERT_OK(do_write(&run, first, 8, BACKING_STAMP * 2 + first));
        for (size_t i = 0; i < 8; i++)
            sectors[first + i] = BACKING_STAMP * 2 + first + i;
    }
    ASSERT_OK(block_close(run.disk));
    *out_bytes = run.bytes;
    *out_len = run.len;
    if (shape->qemu_command == NULL)
        return;
    qemu_oracle_store(&oracle, "disk.qcow2", run.bytes, run.len);
    free(run.bytes);
    ASSERT_RUN(&oracle, "%s", shape->qemu_command);
    struct image_bytes image = qemu_oracle_load(&oracle, "disk.qcow2");
    *out_bytes = image.data;
    *out_len = image.len;
}

static void judge_content(const struct run *run, bool is_clean)
{
    struct qcow_view view;
    size_t count = sector_count(run->shape);
    uint8_t *data = calloc(count, SECTOR_BYTES);
    enum qcow_sector *kinds = calloc(count, sizeof(*kinds));

    assert_true(data != NULL && kinds != NULL && qcow_checker_view(run->bytes, run->len, &view));
    qcow_view_read(&view, 0, count, data, kinds);
    for (size_t i = 0; i < count; i++) {
        uint64_t is = kinds[i] == QCOW_SECTOR_BELOW    ? below(run->shape, i)
                      : kinds[i] == QCOW_SECTOR_BROKEN ? UINT64_MAX
                                                       : stamp_of(data + i * SECTOR_BYTES);
        bool is_allowed = is == run->now[i];
        for (unsigned j = 0; !is_clean && j < run->sectors[i].count; j++)
            is_allowed = is_allowed || is == run->sectors[i].stamps[j];
        if (!is_allowed)
            fail_msg("%s: afterwards sector %zu holds 0x%llx and not 0x%llx", run->shape->name, i,
                     (unsigned long long)is, (unsigned long long)run->now[i]);
    }
    free(data);
    free(kinds);
}

static void judge(struct run *run, const char *fault, uint64_t ordinal, bool is_clean)
{
    struct qcow_verdict verdict = qcow_checker_run(run->bytes, run->len);

    if (verdict.errors > 0)
        fail_msg("%s: %s at operation %llu: %s", run->shape->name, fault,
                 (unsigned long long)ordinal, verdict.first);
    if (ordinal == NEVER && verdict.leaks > 0)
        fail_msg("%s: %u clusters leaked without a fault", run->shape->name, verdict.leaks);
    if (run->errors_heard == 0)
        faults_unheard++;
    judge_content(run, is_clean);
}

struct start {
    uint8_t *bytes; /* owned */
    size_t len;
    uint64_t *sectors; /* owned */
};

/* Gives how many operations there were that can fail. */
static uint64_t run_once(const struct shape *shape, const struct start *start,
                         enum fake_fault fault, uint64_t ordinal)
{
    size_t count = sector_count(shape);
    struct run run = {.shape = shape,
                      .sectors = calloc(count, sizeof(*run.sectors)),
                      .now = calloc(count, sizeof(*run.now)),
                      .chance = chance_of(chance_setting("FERRY_TEST_SEED", 3))};

    if (run.sectors == NULL || run.now == NULL) {
        fail_msg("no memory");
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        run.now[i] = start->sectors[i];
        forget_versions(&run, i);
    }
    ASSERT_OK(host_file_fake_create(start->bytes, start->len, &run.file));
    host_file_fake_keep(run.file, (void **)&run.bytes, &run.len);
    ASSERT_OK(qcow_image_open(run.file, false, &run.disk));
    struct block *backing = make_backing(shape);
    if (backing != NULL)
        qcow_image_set_backing(run.disk, backing);
    uint64_t first = host_file_fake_operations(run.file);
    if (ordinal != NEVER)
        host_file_fake_fail(run.file, fault, ordinal, 1);
    for (unsigned step = 0; step < OPERATIONS; step++)
        do_request(&run, step);
    uint64_t operations = host_file_fake_operations(run.file) - first;
    struct err *err = block_close(run.disk);
    run.errors_heard += err != NULL;
    judge(&run, fault == FAKE_FAULT_IO ? "an error" : "no space", ordinal, err == NULL);
    err_free(err);
    free(run.sectors);
    free(run.now);
    free(run.bytes);
    runs_made++;
    return operations;
}

static void sweep(const struct shape *shape)
{
    struct start start = {.sectors = calloc(sector_count(shape), sizeof(*start.sectors))};

    assert_non_null(start.sectors);
    if (shape->qemu_command != NULL && system("qemu-img --version >/dev/null 2>&1") != 0)
        skip();
    make_start(shape, &start.bytes, &start.len, start.sectors);
    uint64_t operations = run_once(shape, &start, FAKE_FAULT_NONE, NEVER);
    uint64_t every = chance_setting("FERRY_TEST_EVERY", 1);
    assert_true(operations > OPERATIONS / 2);
    for (uint64_t ordinal = 0; ordinal < operations; ordinal += every) {
        (void)run_once(shape, &start, FAKE_FAULT_IO, ordinal);
        (void)run_once(shape, &start, FAKE_FAULT_SHORT_WRITE, ordinal);
    }
    free(start.bytes);
    free(start.sectors);
}

TEST(a_plain_image_survives_every_error)
{
    sweep(&(struct shape){
        .name = "plain",
        .options = {.virtual_bytes = 256 << 10, .version = 3, .cluster_bits = 12},
        .request_sectors_max = 40,
    });
}

TEST(an_overlay_survives_every_error)
{
    sweep(&(struct shape){
        .name = "overlay",
        .options = {.virtual_bytes = 256 << 10,
                    .version = 3,
                    .cluster_bits = 12,
                    .backing_name = "base",
                    .backing_format = "raw"},
        .backing_bytes = 200 << 10,
        .request_sectors_max = 40,
    });
}

TEST(small_clusters_and_a_growing_table_survive_every_error)
{
    sweep(&(struct shape){
        .name = "small clusters",
        .options =
            {.virtual_bytes = 128 << 10, .version = 3, .cluster_bits = 9, .refcount_bits = 64},
        .request_sectors_max = 40,
    });
}

TEST(a_layer_survives_every_error)
{
    sweep(&(struct shape){
        .name = "layer",
        .options = {.virtual_bytes = 512 << 10,
                    .version = 3,
                    .cluster_bits = 14,
                    .has_extended_l2 = true,
                    .is_static = true,
                    .backing_name = "base",
                    .backing_format = "raw"},
        .backing_bytes = 512 << 10,
        .request_sectors_max = 60,
    });
}

TEST(an_image_with_a_snapshot_survives_every_error)
{
    sweep(&(struct shape){
        .name = "snapshot",
        .options = {.virtual_bytes = 256 << 10, .version = 3, .cluster_bits = 12},
        .request_sectors_max = 40,
        .qemu_command = "qemu-img snapshot -c before disk.qcow2",
    });
}

TEST(a_packed_image_survives_every_error)
{
    sweep(&(struct shape){
        .name = "packed",
        .options = {.virtual_bytes = 256 << 10, .version = 3, .cluster_bits = 12},
        .request_sectors_max = 40,
        .qemu_command = "qemu-img convert -c -O qcow2 -o cluster_size=4k disk.qcow2 packed && "
                        "mv packed disk.qcow2",
    });
}

static int make_folder(void **state)
{
    (void)state;
    return qemu_oracle_init(&oracle, "qcow_error_sweep_test");
}

static int remove_folder(void **state)
{
    (void)state;
    print_message("%llu runs, each with its fault, %llu of which nobody had to hear of\n",
                  (unsigned long long)runs_made, (unsigned long long)faults_unheard);
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_image_survives_every_error),
        cmocka_unit_test(an_overlay_survives_every_error),
        cmocka_unit_test(small_clusters_and_a_growing_table_survive_every_error),
        cmocka_unit_test(a_layer_survives_every_error),
        cmocka_unit_test(an_image_with_a_snapshot_survives_every_error),
        cmocka_unit_test(a_packed_image_survives_every_error),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
