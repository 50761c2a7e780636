/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_power_cut_test.c - is the image sound whenever the power goes?
 *
 * Random requests run on a recorded file. From the record come the states that a cut can leave:
 * every prefix of the writes, and random subsets of those since the last barrier, torn between
 * sectors. In each of them no count may be below its references, and each guest sector must hold
 * what it held at the last completed flush or what was written since. Every 16th state is opened
 * and written again, which finds flags that would only harm later.
 *
 * FERRY_TEST_SEED selects other requests, FERRY_TEST_STATES how many subsets for each barrier.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_image.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/host_file_recorder.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define OPERATIONS    90u
#define BACKING_STAMP ((uint64_t)1 << 62)

struct shape {
    const char *name;
    unsigned cluster_bits;
    unsigned version;
    uint64_t virtual_bytes;
    uint64_t backing_bytes; /* 0: none */
    bool has_small_table;   /* wide counts in a small refcount table, which has to grow */
    unsigned request_sectors_max;
    bool has_extended_l2;
    bool has_snapshot; /* QEMU takes one of the filled image; it has to stay as it is */
};

/* The disk after each operation: a stamp for each sector, 0 for zeros. */
struct step {
    uint64_t *sectors; /* owned */
    size_t first_record, end_record;
    bool is_flush;
};

struct run {
    const struct shape *shape;
    struct record_log log;
    struct step steps[OPERATIONS + 1];
    uint8_t *start; /* the image before the first operation */
    size_t start_len;
    struct block *disk;
    struct block *backing;
    uint8_t *snapshot; /* owned; what it holds */
};

/* A file under construction. */
struct state {
    uint8_t *bytes;
    size_t len;
    size_t capacity;
};

static uint64_t random_state;
static uint64_t states_checked;

static uint64_t random_below(uint64_t limit)
{
    ASSERT(limit > 0);
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static uint64_t sector_count(const struct shape *shape)
{
    return shape->virtual_bytes / SECTOR_BYTES;
}

/* One cluster of each kind, 64 bit counts: 64 blocks of 64 clusters of 512 bytes are 2 MiB. */
static void create_small_table(struct host_file *file, const struct shape *shape)
{
    uint64_t l1_bytes = divide_up(shape->virtual_bytes, 64 * 512) * 8;
    struct qcow_header header = {
        .version = 3,
        .cluster_bits = 9,
        .virtual_bytes = shape->virtual_bytes,
        .l1_entries = (uint32_t)(l1_bytes / 8),
        .l1_offset = 3 * 512,
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

static void do_write(struct block *disk, uint64_t *sectors, uint64_t first, uint64_t count)
{
    static uint64_t serial;
    uint8_t *data = malloc(count * SECTOR_BYTES);
    struct iovec iov = {data, count * SECTOR_BYTES};

    assert_non_null(data);
    for (uint64_t i = 0; i < count; i++) {
        sectors[first + i] = ++serial;
        stamp_sector(data + i * SECTOR_BYTES, serial);
    }
    ASSERT_OK(block_write(disk, &iov, 1, first * SECTOR_BYTES));
    free(data);
}

/* Leaves so little room in the table that the operations make it grow. */
static void fill_most(const struct run *run, uint64_t *sectors, struct host_file *file)
{
    struct block *disk = NULL;

    ASSERT_OK(qcow_image_open(file, false, &disk));
    for (uint64_t first = 0; first < sector_count(run->shape) * 3 / 4; first += 128)
        do_write(disk, sectors, first, 128);
    ASSERT_OK(block_close(disk));
}

/* The image in memory goes through a file, for QEMU. */
static void take_snapshot(struct run *run)
{
    char path[] = "/tmp/qcow_power_cut_test.XXXXXX", command[128];
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, run->start, run->start_len), run->start_len);
    (void)snprintf(command, sizeof(command), "qemu-img snapshot -c before %s", path);
    assert_int_equal(system(command), 0);
    off_t end = lseek(fd, 0, SEEK_END);
    free(run->start);
    run->start_len = (size_t)end;
    run->start = malloc(run->start_len);
    assert_non_null(run->start);
    assert_int_equal(pread(fd, run->start, run->start_len, 0), run->start_len);
    (void)close(fd);
    (void)unlink(path);
}

/* What the snapshot holds; sectors of the backing file and zeros are zeros. */
static uint8_t *read_snapshot(const struct shape *shape, const uint8_t *image, size_t len)
{
    struct qcow_view view;
    uint8_t *data = malloc(shape->virtual_bytes);
    enum qcow_sector *kinds = calloc(sector_count(shape) + 1, sizeof(*kinds));

    assert_true(data != NULL && kinds != NULL);
    assert_true(qcow_checker_snapshot_view(image, len, 0, &view));
    qcow_view_read(&view, 0, sector_count(shape), data, kinds);
    free(kinds);
    return data;
}

static void check_snapshot(const struct run *run, const struct state *state, size_t cut)
{
    if (!run->shape->has_snapshot)
        return;
    uint8_t *data = read_snapshot(run->shape, state->bytes, state->len);
    if (memcmp(data, run->snapshot, run->shape->virtual_bytes) != 0)
        fail_msg("%s: cut after %zu writes: the snapshot has changed", run->shape->name, cut);
    free(data);
}

static void start_run(struct run *run)
{
    const struct shape *shape = run->shape;
    struct host_file *file = NULL, *recorder = NULL;
    uint64_t *sectors = calloc(sector_count(shape), sizeof(*sectors));

    assert_non_null(sectors);
    for (uint64_t i = 0; i < shape->backing_bytes / SECTOR_BYTES; i++)
        sectors[i] = BACKING_STAMP + i;
    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    host_file_fake_keep(file, (void **)&run->start, &run->start_len);
    if (shape->has_small_table)
        create_small_table(file, shape);
    else
        ASSERT_OK(qcow_create(file, &(struct qcow_create_options){
                                        .virtual_bytes = shape->virtual_bytes,
                                        .version = shape->version,
                                        .cluster_bits = shape->cluster_bits,
                                        .has_extended_l2 = shape->has_extended_l2,
                                        .backing_name = shape->backing_bytes > 0 ? "base" : NULL,
                                        .backing_format = "raw",
                                    }));
    if (shape->has_small_table || shape->has_snapshot)
        fill_most(run, sectors, file);
    else
        host_file_destroy(file);
    if (shape->has_snapshot) {
        take_snapshot(run);
        run->snapshot = read_snapshot(shape, run->start, run->start_len);
    }

    ASSERT_OK(host_file_fake_create(run->start, run->start_len, &file));
    ASSERT_OK(host_file_recorder_create(file, &run->log, &recorder));
    ASSERT_OK(qcow_image_open(recorder, false, &run->disk));
    run->backing = make_backing(shape);
    if (run->backing != NULL)
        qcow_image_set_backing(run->disk, run->backing);
    run->steps[0] = (struct step){.sectors = sectors, .is_flush = true};
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

static void do_step(struct run *run, unsigned index)
{
    const struct shape *shape = run->shape;
    struct step *step = &run->steps[index];
    uint64_t count = 1 + random_below(shape->request_sectors_max);
    uint64_t first = random_below(sector_count(shape) - count + 1);
    size_t bytes = sector_count(shape) * sizeof(*step->sectors);

    *step = (struct step){.sectors = malloc(bytes), .first_record = run->log.count};
    assert_non_null(step->sectors);
    memcpy(step->sectors, run->steps[index - 1].sectors, bytes);
    switch (random_below(10)) {
    case 0: do_discard(run, step->sectors, first, count); break;
    case 1:
        memset(step->sectors + first, 0, count * sizeof(*step->sectors));
        ASSERT_OK(block_write_zeroes(run->disk, first * SECTOR_BYTES, count * SECTOR_BYTES,
                                     random_below(2) == 0));
        break;
    case 2:
    case 3:
        step->is_flush = true;
        ASSERT_OK(block_flush(run->disk));
        break;
    default: do_write(run->disk, step->sectors, first, count);
    }
    step->end_record = run->log.count;
}

static void finish_run(struct run *run)
{
    record_log_finish(&run->log);
    for (unsigned i = 0; i <= OPERATIONS; i++)
        free(run->steps[i].sectors);
    free(run->start);
    free(run->snapshot);
}

static void state_reserve(struct state *state, size_t len)
{
    if (len > state->capacity) {
        state->bytes = realloc(state->bytes, len * 2);
        assert_non_null(state->bytes);
        memset(state->bytes + state->capacity, 0, len * 2 - state->capacity);
        state->capacity = len * 2;
    }
    state->len = MAX(state->len, len);
}

/* Bytes behind `len` stay zero, so that growing needs no clearing. */
static void state_copy(struct state *state, const uint8_t *bytes, size_t len)
{
    if (state->len > len)
        memset(state->bytes + len, 0, state->len - len);
    state->len = 0;
    state_reserve(state, len);
    memcpy(state->bytes, bytes, len);
}

/* Applies what of a record a cut lets through: each sector with a chance of `percent`. */
static void apply(struct state *state, const struct record *record, unsigned percent)
{
    if (record->kind == RECORD_SYNC)
        return;
    if (record->kind == RECORD_TRUNCATE) {
        state_reserve(state, record->offset);
        return;
    }
    for (uint64_t done = 0, part; done < record->len; done += part) {
        uint64_t at = record->offset + done;
        part = MIN(record->len - done, SECTOR_BYTES - at % SECTOR_BYTES);
        if (random_below(100) >= percent)
            continue;
        if (record->kind == RECORD_WRITE) {
            state_reserve(state, at + part);
            memcpy(state->bytes + at, record->data + done, part);
        } else if (at < state->len) {
            memset(state->bytes + at, 0, MIN(part, state->len - at));
        }
    }
}

static uint64_t content_of(const struct run *run, const struct state *state, uint64_t sector)
{
    uint8_t bytes[SECTOR_BYTES];

    switch (qcow_checker_read(state->bytes, state->len, sector * SECTOR_BYTES, bytes)) {
    case QCOW_SECTOR_DATA: return stamp_of(bytes);
    case QCOW_SECTOR_ZERO: return 0;
    case QCOW_SECTOR_BELOW:
        return sector * SECTOR_BYTES < run->shape->backing_bytes ? BACKING_STAMP + sector : 0;
    case QCOW_SECTOR_BROKEN: break;
    }
    return UINT64_MAX;
}

/* The last flush that was over, and the last operation that had begun, when `cut` records were
 * written. */
static void steps_at(const struct run *run, size_t cut, unsigned *out_flush, unsigned *out_last)
{
    *out_flush = *out_last = 0;
    for (unsigned i = 1; i <= OPERATIONS; i++) {
        if (run->steps[i].is_flush && run->steps[i].end_record <= cut)
            *out_flush = i;
        if (run->steps[i].first_record <= cut)
            *out_last = i;
    }
}

static void check_content(const struct run *run, const struct state *state, size_t cut)
{
    unsigned flush, last;

    steps_at(run, cut, &flush, &last);
    for (uint64_t sector = 0; sector < sector_count(run->shape); sector++) {
        uint64_t content = content_of(run, state, sector);
        bool is_allowed = false;
        for (unsigned i = flush; i <= last && !is_allowed; i++)
            is_allowed = run->steps[i].sectors[sector] == content;
        if (!is_allowed)
            fail_msg(
                "%s: cut after %zu writes: sector %llu holds 0x%llx, at the flush it was 0x%llx",
                run->shape->name, cut, (unsigned long long)sector, (unsigned long long)content,
                (unsigned long long)run->steps[flush].sectors[sector]);
    }
}

/* The image is still good when it is used again as it is. */
static void use_again(const struct run *run, const struct state *state)
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
        ASSERT_OK(
            block_write(disk, &iov, 1, random_below(sector_count(run->shape) - 2) * SECTOR_BYTES));
    ASSERT_OK(block_close(disk));
    struct qcow_verdict verdict = qcow_checker_run(bytes, len);
    if (verdict.errors > 0)
        fail_msg("%s: used again after a cut: %s", run->shape->name, verdict.first);
    free(bytes);
}

static void check_state(const struct run *run, const struct state *state, size_t cut)
{
    struct qcow_verdict verdict = qcow_checker_run(state->bytes, state->len);

    if (verdict.errors > 0)
        fail_msg("%s: cut after %zu writes: %s", run->shape->name, cut, verdict.first);
    check_content(run, state, cut);
    check_snapshot(run, state, cut);
    if (++states_checked % 16 == 0)
        use_again(run, state);
}

/* Chances in percent that a sector arrives: of one record picked at random, and of the others. */
static const struct {
    unsigned one, others;
} chances[] = {{50, 50}, {0, 100}, {100, 0}, {95, 95}, {100, 50}, {5, 5}};

/* Random subsets of the records from the last barrier to each of some cuts before the next. */
static void check_subsets(const struct run *run, const struct state *durable, size_t barrier,
                          size_t end, struct state *scratch)
{
    for (uint64_t i = 0; i < setting("FERRY_TEST_STATES", 6); i++) {
        size_t cut = i % 2 == 0 ? end : barrier + random_below(end - barrier + 1);
        size_t one = barrier + random_below(cut - barrier + 1);
        state_copy(scratch, durable->bytes, durable->len);
        for (size_t j = barrier; j < cut; j++)
            apply(scratch, &run->log.records[j],
                  j == one ? chances[i % ARRAY_COUNT(chances)].one
                           : chances[i % ARRAY_COUNT(chances)].others);
        check_state(run, scratch, cut);
    }
}

static void check_cuts(const struct run *run)
{
    struct state durable = {0}, prefix = {0}, scratch = {0};
    size_t barrier = 0;

    state_copy(&durable, run->start, run->start_len);
    state_copy(&prefix, run->start, run->start_len);
    check_state(run, &prefix, 0);
    for (size_t i = 0; i < run->log.count; i++) {
        apply(&prefix, &run->log.records[i], 100);
        check_state(run, &prefix, i + 1);
        if (run->log.records[i].kind == RECORD_SYNC || i + 1 == run->log.count) {
            check_subsets(run, &durable, barrier, i, &scratch);
            state_copy(&durable, prefix.bytes, prefix.len);
            barrier = i + 1;
        }
    }
    free(durable.bytes);
    free(prefix.bytes);
    free(scratch.bytes);
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
    for (unsigned round = 0; round < rounds; round++) {
        struct run run = {.shape = shape};
        start_run(&run);
        for (unsigned i = 1; i <= OPERATIONS; i++)
            do_step(&run, i);
        /* Closing adds records that belong to no operation but the last. */
        ASSERT_OK(block_close(run.disk));
        assert_true(!shape->has_small_table || has_grown(&run));
        check_cuts(&run);
        finish_run(&run);
    }
}

TEST(a_plain_image_survives_every_cut)
{
    cut_power(&(struct shape){"plain", 12, 3, 256 << 10, 0, false, 40, false, false}, 2);
}

TEST(an_overlay_survives_every_cut)
{
    cut_power(&(struct shape){"overlay", 12, 3, 256 << 10, 200 << 10, false, 40, false, false}, 2);
}

TEST(an_image_of_version_2_survives_every_cut)
{
    cut_power(&(struct shape){"version 2", 12, 2, 256 << 10, 0, false, 40, false, false}, 2);
}

TEST(large_clusters_survive_every_cut)
{
    cut_power(
        &(struct shape){"large clusters", 16, 3, 1 << 20, 700 << 10, false, 200, false, false}, 1);
}

TEST(small_clusters_survive_every_cut)
{
    cut_power(
        &(struct shape){"small clusters", 9, 3, 256 << 10, 100 << 10, false, 60, false, false}, 1);
}

TEST(subclusters_survive_every_cut)
{
    cut_power(&(struct shape){"subclusters", 14, 3, 256 << 10, 0, false, 40, true, false}, 1);
    cut_power(&(struct shape){"layer", 17, 3, 1 << 20, 700 << 10, false, 200, true, false}, 1);
}

TEST(an_image_that_shares_with_a_snapshot_survives_every_cut)
{
    if (system("qemu-img --version >/dev/null 2>&1") != 0) {
        print_message("skipped: qemu-img is not installed (apt: qemu-utils)\n");
        skip();
    }
    cut_power(&(struct shape){"snapshot", 12, 3, 256 << 10, 0, false, 40, false, true}, 2);
    cut_power(&(struct shape){"snapshot, small", 9, 3, 256 << 10, 0, false, 60, false, true}, 1);
    cut_power(&(struct shape){"snapshot, parts", 14, 3, 512 << 10, 0, false, 90, true, true}, 1);
}

TEST(a_growing_refcount_table_survives_every_cut)
{
    cut_power(&(struct shape){"growing table", 9, 3, 2304 << 10, 0, true, 500, false, false}, 1);
}

/* The checker has to be able to fail: each of these faults is one that it must see. */
TEST(faults_are_seen)
{
    struct run run = {.shape =
                          &(struct shape){"faults", 12, 3, 256 << 10, 0, false, 40, false, false}};
    uint8_t *bytes = NULL;
    size_t len = 0;

    start_run(&run);
    do_write(run.disk, run.steps[0].sectors, 0, 16);
    ASSERT_OK(block_flush(run.disk));
    struct state state = {0};
    state_copy(&state, run.start, run.start_len);
    for (size_t i = 0; i < run.log.count; i++)
        apply(&state, &run.log.records[i], 100);
    bytes = state.bytes;
    len = state.len;
    assert_int_equal(qcow_checker_run(bytes, len).errors, 0);

    uint64_t counts_at = 0, last_data = len / 4096 - 1;
    for (unsigned i = 0; i < 8; i++)
        counts_at = counts_at << 8 | bytes[4096 + i];
    bytes[counts_at + last_data * 2 + 1] = 0;
    assert_true(qcow_checker_run(bytes, len).errors > 0);
    bytes[counts_at + last_data * 2 + 1] = 2;
    assert_true(qcow_checker_run(bytes, len).errors > 0);
    bytes[counts_at + last_data * 2 + 1] = 1;
    assert_int_equal(qcow_checker_run(bytes, len).errors, 0);
    bytes[counts_at + (last_data + 5) * 2 + 1] = 1;
    assert_int_equal(qcow_checker_run(bytes, len).errors, 0);

    free(bytes);
    ASSERT_OK(block_close(run.disk));
    finish_run(&run);
}

static int print_count(void **state)
{
    (void)state;
    print_message("%llu states checked\n", (unsigned long long)states_checked);
    return 0;
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
        cmocka_unit_test(a_growing_refcount_table_survives_every_cut),
        cmocka_unit_test(faults_are_seen),
    };

    random_state = setting("FERRY_TEST_SEED", 7) * 2654435761u + 1;
    return cmocka_run_group_tests(tests, NULL, print_count);
}
