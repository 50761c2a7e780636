/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_power_cut_test.c - is the image sound whenever the power goes?
 *
 * Random requests run on a recorded file. From the record come the states that a cut can leave
 * (cut_states.h). In each of them the independent checker must find no error, each guest sector
 * must hold what it held at the last completed flush or what was written since, and not much may
 * be leaked. Every 16th state is opened and written again, which finds flags that would only harm
 * later; every 50th is shown to qemu-img.
 *
 * FERRY_TEST_SEED selects other requests, FERRY_TEST_STATES how many subsets for each barrier,
 * FERRY_TEST_ROUNDS multiplies the rounds. 60,000 states: FERRY_TEST_STATES=12 FERRY_TEST_ROUNDS=6.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/cut_states.h"
#include "storage/testing/disk_history.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/host_file_recorder.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/qemu_oracle.h"
#include "storage/testing/sector_stamp.h"

#define OPERATIONS      90u
#define BACKING_STAMP   ((uint64_t)1 << 62)
#define QEMU_EVERY      50u
#define USE_AGAIN_EVERY 16u
#define LEAKS_MAX       2000u

struct shape {
    const char *name;
    unsigned cluster_bits;
    unsigned version;
    uint64_t virtual_bytes;
    uint64_t backing_bytes; /* 0: none */
    unsigned request_sectors_max;
    bool has_extended_l2;
    bool has_small_table;        /* wide counts in a small refcount table, which has to grow */
    bool is_mostly_discards;     /* as many as writes */
    bool has_snapshot;           /* QEMU takes one of the filled image */
    const char *compressed_with; /* the start is packed by qemu-img with these options */
};

struct run {
    struct cut_judge base;
    const struct shape *shape;
    struct record_log log;
    struct disk_history history;
    uint8_t *start; /* owned: the image before the first operation */
    size_t start_len;
    struct block *disk;
};

static struct chance chance;
static uint64_t states_checked, states_shown_to_qemu, leaks_most;
static bool has_qemu;
static struct qemu_oracle oracle;

static uint64_t sector_count(const struct shape *shape)
{
    return shape->virtual_bytes / SECTOR_BYTES;
}

/* One cluster of each kind, 64 bit counts: 64 blocks of 64 clusters of 512 bytes are 2 MiB. */
static void create_small_table(struct host_file *file, const struct shape *shape)
{
    uint64_t l1_bytes = divide_up(shape->virtual_bytes, (uint64_t)64 * 512) * 8;
    struct qcow_header header = {
        .version = 3,
        .cluster_bits = 9,
        .virtual_bytes = shape->virtual_bytes,
        .l1_entries = (uint32_t)(l1_bytes / 8),
        .l1_offset = (uint64_t)3 * 512,
        .refcount_table_offset = 512,
        .refcount_table_clusters = 1,
        .refcount_order = 6,
    };
    uint8_t cluster[512];
    struct writer out = writer_of(cluster, sizeof(cluster));

    ASSERT_OK(host_file_truncate(file, align_up(header.l1_offset + l1_bytes, 512)));
    for (uint64_t i = 0; i < 3 + divide_up(l1_bytes, 512); i++)
        writer_be64(&out, 1);
    ASSERT_OK(host_file_write_bytes(file, cluster, (size_t)(out.at - cluster), 1024));
    out = writer_of(cluster, sizeof(cluster));
    writer_be64(&out, 1024);
    ASSERT_OK(host_file_write_bytes(file, cluster, 8, 512));
    ASSERT_OK(qcow_header_build(&header, cluster, sizeof(cluster)));
    ASSERT_OK(host_file_write_bytes(file, cluster, sizeof(cluster), 0));
}

static struct block *make_backing(const struct shape *shape)
{
    struct block *backing = NULL;

    if (shape->backing_bytes == 0)
        return NULL;
    ASSERT_OK(block_memory_create(shape->backing_bytes, &backing));
    for (uint64_t i = 0; i < shape->backing_bytes / SECTOR_BYTES; i++)
        stamp_sector(block_memory_bytes(backing) + i * SECTOR_BYTES, BACKING_STAMP + i);
    return backing;
}

static unsigned planned_writes;

static void do_write(struct block *disk, uint64_t *sectors, uint64_t first, uint64_t count)
{
    static uint64_t serial;
    bool is_planned = false;
    uint8_t *data = malloc(count * SECTOR_BYTES);
    struct iovec iov = {data, count * SECTOR_BYTES};

    assert_non_null(data);
    for (uint64_t i = 0; i < count; i++) {
        sectors[first + i] = ++serial;
        stamp_sector(data + i * SECTOR_BYTES, serial);
    }
    /* Planned or not, both ways are used by a running machine. */
    if (chance_below(&chance, 2) == 0)
        ASSERT_OK(planned_write(disk, data, iov.iov_len, first * SECTOR_BYTES, &is_planned));
    else
        ASSERT_OK(block_write(disk, &iov, 1, first * SECTOR_BYTES));
    planned_writes += is_planned;
    free(data);
}

/* Leaves so little room in the table that the operations make it grow. */
static void fill_most(const struct run *run, struct host_file *file)
{
    struct block *disk = NULL;

    ASSERT_OK(qcow_image_open(file, false, &disk));
    for (uint64_t first = 0; first < sector_count(run->shape) * 13 / 16; first += 128)
        do_write(disk, run->history.steps[0].sectors, first, 128);
    ASSERT_OK(block_close(disk));
}

static void load_start(struct run *run, const char *name)
{
    struct image_bytes image = qemu_oracle_load(&oracle, name);

    free(run->start);
    run->start = image.data;
    run->start_len = image.len;
}

/* Packed by QEMU: several compressed clusters lie in one cluster of the file. */
static void load_compressed(struct run *run)
{
    uint64_t *sectors = run->history.steps[0].sectors;
    size_t raw_len = (size_t)run->shape->virtual_bytes;
    uint8_t *raw = malloc(raw_len);

    assert_non_null(raw);
    for (uint64_t i = 0; i < sector_count(run->shape); i++) {
        sectors[i] = i / 100 % 3 == 2 ? 0 : BACKING_STAMP + i;
        stamp_sector(raw + i * SECTOR_BYTES, sectors[i]);
    }
    qemu_oracle_store(&oracle, "disk.raw", raw, raw_len);
    free(raw);
    ASSERT_RUN(&oracle, "qemu-img convert -f raw -O qcow2 -c -o %s disk.raw packed.qcow2",
               run->shape->compressed_with);
    load_start(run, "packed.qcow2");
}

/* The image in memory goes through a file, for QEMU. */
static void take_snapshot(struct run *run)
{
    qemu_oracle_store(&oracle, "disk.qcow2", run->start, run->start_len);
    ASSERT_RUN(&oracle, "qemu-img snapshot -c before disk.qcow2");
    load_start(run, "disk.qcow2");
    disk_history_snapshot(&run->history, "before")->create_end = 0;
}

static void create_start(struct run *run)
{
    const struct shape *shape = run->shape;
    struct host_file *file = NULL;

    if (shape->compressed_with != NULL) {
        load_compressed(run);
        return;
    }
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, (void **)&run->start, &run->start_len);
    if (shape->has_small_table) {
        create_small_table(file, shape);
        fill_most(run, file);
        return;
    }
    ASSERT_OK(qcow_create(file, &(struct qcow_create_options){
                                    .virtual_bytes = shape->virtual_bytes,
                                    .version = shape->version,
                                    .cluster_bits = shape->cluster_bits,
                                    .has_extended_l2 = shape->has_extended_l2,
                                    .backing_name = shape->backing_bytes > 0 ? "base" : NULL,
                                    .backing_format = "raw",
                                }));
    if (!shape->has_snapshot) {
        host_file_destroy(file);
        return;
    }
    fill_most(run, file);
    take_snapshot(run);
}

static void start_run(struct run *run)
{
    const struct shape *shape = run->shape;
    struct host_file *file = NULL, *recorder = NULL;
    uint64_t *below = calloc(sector_count(shape), sizeof(*below));

    assert_non_null(below);
    for (uint64_t i = 0; i < shape->backing_bytes / SECTOR_BYTES; i++)
        below[i] = BACKING_STAMP + i;
    disk_history_init(&run->history, sector_count(shape), below);
    create_start(run);
    ASSERT_OK(host_file_fake_create(run->start, run->start_len, &file));
    ASSERT_OK(host_file_recorder_create(file, &run->log, &recorder));
    ASSERT_OK(qcow_image_open(recorder, false, &run->disk));
    struct block *backing = make_backing(shape);
    if (backing != NULL)
        qcow_image_set_backing(run->disk, backing);
}

/* What a discard left is read back: zeros or the old content, both are right. */
static void do_discard(struct run *run, uint64_t *sectors, uint64_t first, uint64_t count)
{
    ASSERT_OK(block_discard(run->disk, first * SECTOR_BYTES, count * SECTOR_BYTES));
    for (uint64_t i = first; i < first + count; i++) {
        uint8_t sector[SECTOR_BYTES];
        struct iovec iov = {sector, sizeof(sector)};
        ASSERT_OK(block_read(run->disk, &iov, 1, i * SECTOR_BYTES));
        if (stamp_of(sector) == 0)
            sectors[i] = 0;
        assert_int_equal(stamp_of(sector), sectors[i]);
    }
}

static void do_step(struct run *run)
{
    const struct shape *shape = run->shape;
    uint64_t count = 1 + chance_below(&chance, shape->request_sectors_max);
    uint64_t first = chance_below(&chance, sector_count(shape) - count + 1);
    struct disk_step *step = disk_history_begin(&run->history, run->log.count);

    switch (chance_below(&chance, shape->is_mostly_discards ? 6 : 10)) {
    case 0: do_discard(run, step->sectors, first, count); break;
    case 1:
        memset(step->sectors + first, 0, count * sizeof(*step->sectors));
        ASSERT_OK(block_write_zeroes(run->disk, first * SECTOR_BYTES, count * SECTOR_BYTES,
                                     chance_below(&chance, 2) == 0));
        break;
    case 2:
    case 3:
        step->is_flush = true;
        ASSERT_OK(block_flush(run->disk));
        break;
    default: do_write(run->disk, step->sectors, first, count);
    }
    disk_history_end(&run->history, run->log.count);
}

static void finish_run(struct run *run)
{
    record_log_finish(&run->log);
    disk_history_finish(&run->history);
    free(run->start);
}

static void show_qemu(const struct run *run, const struct cut_state *state)
{
    qemu_oracle_store(&oracle, "disk.qcow2", state->bytes, state->len);
    int status = qemu_oracle_run(&oracle, "qemu-img check -q -f qcow2 disk.qcow2");
    /* 3: nothing worse than leaks. */
    if (status != 0 && status != 3)
        fail_msg("%s: cut after %zu writes, %s: qemu-img check says %d", run->shape->name,
                 state->cut, state->which, status);
    states_shown_to_qemu++;
}

/* The image is still good when it is used again as it is. */
static void use_again(const struct run *run, const struct cut_state *state)
{
    struct host_file *file = NULL;
    struct block *disk = NULL;
    uint8_t *bytes = NULL, data[3 * SECTOR_BYTES] = {0};
    struct iovec iov = {data, sizeof(data)};
    size_t len = 0;

    ASSERT_OK(host_file_fake_create(state->bytes, state->len, &file));
    host_file_fake_keep(file, (void **)&bytes, &len);
    ASSERT_OK(qcow_image_open(file, false, &disk));
    struct block *backing = make_backing(run->shape);
    if (backing != NULL)
        qcow_image_set_backing(disk, backing);
    for (unsigned i = 0; i < 8; i++)
        ASSERT_OK(block_write(disk, &iov, 1,
                              chance_below(&chance, sector_count(run->shape) - 2) * SECTOR_BYTES));
    ASSERT_OK(block_close(disk));
    struct qcow_verdict verdict = qcow_checker_run(bytes, len);
    if (verdict.errors > 0)
        fail_msg("%s: used again after a cut: %s", run->shape->name, verdict.first);
    free(bytes);
}

static void judge_state(struct cut_judge *judge, const struct cut_state *state)
{
    const struct run *run = CONTAINER_OF(judge, struct run, base);
    struct qcow_verdict verdict = qcow_checker_run(state->bytes, state->len);
    char trouble[160];

    if (verdict.errors > 0)
        fail_msg("%s: cut after %zu writes, %s: %s", run->shape->name, state->cut, state->which,
                 verdict.first);
    if (verdict.leaks > LEAKS_MAX)
        fail_msg("%s: cut after %zu writes: %u leaks", run->shape->name, state->cut, verdict.leaks);
    leaks_most = MAX(leaks_most, (uint64_t)verdict.leaks);
    if (!disk_history_allows(&run->history, state->bytes, state->len, state->cut, trouble,
                             sizeof(trouble)))
        fail_msg("%s: cut after %zu writes, %s: %s", run->shape->name, state->cut, state->which,
                 trouble);
    if (++states_checked % USE_AGAIN_EVERY == 0)
        use_again(run, state);
    if (has_qemu && states_checked % QEMU_EVERY == 0)
        show_qemu(run, state);
}

static bool has_grown(const struct run *run)
{
    for (size_t i = 0; i < run->log.count; i++)
        if (run->log.records[i].kind == RECORD_WRITE &&
            run->log.records[i].offset == QCOW_HEADER_AT_REFCOUNT_TABLE)
            return true;
    return false;
}

static void cut_power(const struct shape *shape, unsigned rounds)
{
    for (unsigned round = 0; round < rounds * chance_setting("FERRY_TEST_ROUNDS", 1); round++) {
        struct run run = {.base = {judge_state}, .shape = shape};
        start_run(&run);
        for (unsigned i = 1; i <= OPERATIONS; i++)
            do_step(&run);
        /* Closing adds records that belong to no operation but the last. */
        ASSERT_OK(block_close(run.disk));
        assert_true(!shape->has_small_table || has_grown(&run));
        cut_states_visit(
            &(struct cut_source){
                .start = run.start,
                .start_len = run.start_len,
                .log = &run.log,
                .subsets = (unsigned)chance_setting("FERRY_TEST_STATES", 6),
                .chance = &chance,
            },
            &run.base);
        finish_run(&run);
    }
}

TEST(a_plain_image_survives_every_cut)
{
    cut_power(&(struct shape){"plain", 12, 3, 256 << 10, .request_sectors_max = 40}, 2);
}

TEST(an_overlay_survives_every_cut)
{
    cut_power(&(struct shape){"overlay", 12, 3, 256 << 10, .backing_bytes = 200 << 10,
                              .request_sectors_max = 40},
              2);
}

TEST(an_image_of_version_2_survives_every_cut)
{
    cut_power(&(struct shape){"version 2", 12, 2, 256 << 10, .request_sectors_max = 40}, 2);
}

TEST(large_clusters_survive_every_cut)
{
    cut_power(&(struct shape){"large clusters", 16, 3, 1 << 20, .backing_bytes = 700 << 10,
                              .request_sectors_max = 200},
              1);
}

TEST(small_clusters_survive_every_cut)
{
    cut_power(&(struct shape){"small clusters", 9, 3, 256 << 10, .backing_bytes = 100 << 10,
                              .request_sectors_max = 60},
              1);
}

TEST(subclusters_survive_every_cut)
{
    cut_power(&(struct shape){"subclusters", 14, 3, 256 << 10, .request_sectors_max = 40,
                              .has_extended_l2 = true},
              1);
    cut_power(&(struct shape){"layer", 17, 3, 1 << 20, .backing_bytes = 700 << 10,
                              .request_sectors_max = 200, .has_extended_l2 = true},
              1);
}

TEST(an_image_that_shares_with_a_snapshot_survives_every_cut)
{
    static const struct shape shapes[] = {
        {"snapshot", 12, 3, 256 << 10, .request_sectors_max = 40, .has_snapshot = true},
        {"snapshot, small", 9, 3, 256 << 10, .request_sectors_max = 60, .has_snapshot = true,
         .is_mostly_discards = true},
        {"snapshot, parts", 14, 3, 512 << 10, .request_sectors_max = 90, .has_snapshot = true,
         .has_extended_l2 = true},
    };

    if (!has_qemu)
        skip();
    planned_writes = 0;
    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++)
        cut_power(&shapes[i], 1);
    assert_true(planned_writes > 10);
}

TEST(discards_survive_every_cut)
{
    cut_power(&(struct shape){"discards", 9, 3, 128 << 10, .request_sectors_max = 60,
                              .is_mostly_discards = true},
              2);
    cut_power(&(struct shape){"discards over a base", 12, 3, 256 << 10, .backing_bytes = 200 << 10,
                              .request_sectors_max = 40, .is_mostly_discards = true},
              1);
}

TEST(compressed_images_survive_every_cut)
{
    static const char *const options[] = {"cluster_size=4k", "cluster_size=16k,extended_l2=on",
                                          "cluster_size=512,compression_type=zstd"};

    if (!has_qemu)
        skip();
    for (size_t i = 0; i < ARRAY_COUNT(options); i++)
        cut_power(&(struct shape){"compressed", 12, 3, 256 << 10, .request_sectors_max = 40,
                                  .is_mostly_discards = i == 2, .compressed_with = options[i]},
                  1);
}

TEST(a_growing_refcount_table_survives_every_cut)
{
    cut_power(&(struct shape){"growing table", 9, 3, 2304 << 10, .request_sectors_max = 500,
                              .has_small_table = true},
              1);
}

static int start(void **state)
{
    (void)state;
    chance = chance_of(chance_setting("FERRY_TEST_SEED", 7));
    has_qemu = qemu_oracle_has("qemu-img");
    if (qemu_oracle_init(&oracle, "qcow_power_cut_test") != 0)
        return -1;
    qemu_oracle_store(&oracle, "base", (const uint8_t *)"", 0); /* what overlays name */
    return 0;
}

static int finish(void **state)
{
    (void)state;
    print_message("%llu states checked, %llu by qemu-img too; at most %llu clusters leaked\n",
                  (unsigned long long)states_checked, (unsigned long long)states_shown_to_qemu,
                  (unsigned long long)leaks_most);
    return qemu_oracle_finish(&oracle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_image_survives_every_cut),
        cmocka_unit_test(an_overlay_survives_every_cut),
        cmocka_unit_test(an_image_of_version_2_survives_every_cut),
        cmocka_unit_test(large_clusters_survive_every_cut),
        cmocka_unit_test(small_clusters_survive_every_cut),
        cmocka_unit_test(subclusters_survive_every_cut),
        cmocka_unit_test(an_image_that_shares_with_a_snapshot_survives_every_cut),
        cmocka_unit_test(discards_survive_every_cut),
        cmocka_unit_test(compressed_images_survive_every_cut),
        cmocka_unit_test(a_growing_refcount_table_survives_every_cut),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
