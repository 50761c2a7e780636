/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/lock.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/qcow/qcow_write_list.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/qcow_checker.h"

#define DISK_BYTES   (1u << 20)
#define CLUSTER_BITS 12u
#define PART_BYTES   2048u /* half a cluster: what a request of the sweep touches */
#define PART_COUNT   (DISK_BYTES / PART_BYTES)

struct fixture {
    struct host_file *file; /* the disk's */
    struct block *disk;
    uint8_t *bytes; /* the image, once the disk is closed */
    size_t len;
};

static void set_up(struct fixture *fixture)
{
    struct qcow_create_options options = {
        .virtual_bytes = DISK_BYTES, .version = 3, .cluster_bits = CLUSTER_BITS};

    *fixture = (struct fixture){.disk = NULL};
    ASSERT_OK(host_file_fake_create(NULL, 0, &fixture->file));
    ASSERT_OK(qcow_create(fixture->file, &options));
    host_file_fake_keep(fixture->file, (void **)&fixture->bytes, &fixture->len);
    ASSERT_OK(qcow_image_open(fixture->file, false, &fixture->disk));
}

static struct err *write_part(struct fixture *fixture, uint64_t part, uint8_t value)
{
    uint8_t data[PART_BYTES];
    struct iovec iov = {data, sizeof(data)};

    memset(data, value, sizeof(data));
    return block_write(fixture->disk, &iov, 1, part * PART_BYTES);
}

static struct qcow_run reserved_of(struct fixture *fixture)
{
    struct qcow_image *image = qcow_image_of(fixture->disk);

    lock_acquire(&image->lock);
    struct qcow_run run = image->allocator.reserved;
    lock_release(&image->lock);
    return run;
}

static uint64_t syncs_of_flush(struct fixture *fixture)
{
    uint64_t before = host_file_fake_syncs(fixture->file);

    ASSERT_OK(block_flush(fixture->disk));
    return host_file_fake_syncs(fixture->file) - before;
}

TEST(a_flush_makes_at_most_two_barriers)
{
    struct fixture fixture;

    set_up(&fixture);
    assert_int_equal(syncs_of_flush(&fixture), 0);
    ASSERT_OK(write_part(&fixture, 0, 1));
    ASSERT_OK(write_part(&fixture, 300, 1));
    assert_int_equal(syncs_of_flush(&fixture), 2);
    assert_int_equal(syncs_of_flush(&fixture), 0);
    ASSERT_OK(write_part(&fixture, 0, 2));
    assert_int_equal(syncs_of_flush(&fixture), 1);
    ASSERT_OK(block_discard(fixture.disk, 0, 4096));
    ASSERT_OK(write_part(&fixture, 7, 2));
    assert_int_equal(syncs_of_flush(&fixture), 2);
    ASSERT_OK(block_close(fixture.disk));

    struct qcow_verdict verdict = qcow_checker_run(fixture.bytes, fixture.len);
    assert_int_equal(verdict.errors, 0);
    assert_int_equal(verdict.leaks, 0);
    free(fixture.bytes);
}

static uint64_t operations_of_flush(struct fixture *fixture)
{
    uint64_t before = host_file_fake_operations(fixture->file);

    ASSERT_OK(block_flush(fixture->disk));
    return host_file_fake_operations(fixture->file) - before;
}

TEST(most_allocations_write_no_counts)
{
    struct fixture fixture;

    set_up(&fixture);
    ASSERT_OK(write_part(&fixture, 0, 1));
    assert_int_equal(operations_of_flush(&fixture), 5); /* counts, L2 slice, L1 and two barriers */
    for (uint64_t cluster = 1; cluster < 16; cluster++) {
        ASSERT_OK(write_part(&fixture, 2 * cluster, 1));
        assert_int_equal(operations_of_flush(&fixture), 3); /* an L2 slice and two barriers */
    }
    ASSERT_OK(block_close(fixture.disk));
    struct qcow_verdict verdict = qcow_checker_run(fixture.bytes, fixture.len);
    assert_int_equal(verdict.errors + verdict.leaks, 0);
    free(fixture.bytes);
}

TEST(adjacent_metadata_is_one_write)
{
    struct qcow_write_list list = {NULL, 0};
    struct host_file *file = NULL;
    static const uint64_t offsets[] = {8192, 0, 20480, 4096, 12288};
    uint8_t data[24576];

    ASSERT_OK(host_file_fake_create(NULL, 0, &file));
    for (size_t i = 0; i < ARRAY_COUNT(offsets); i++)
        memset(qcow_write_list_add(&list, offsets[i], 4096), (int)i + 1, 4096);
    uint64_t before = host_file_fake_operations(file);
    ASSERT_OK(qcow_write_list_submit(&list, file));

    assert_int_equal(host_file_fake_operations(file) - before, 2);
    ASSERT_OK(host_file_read_bytes(file, data, sizeof(data), 0));
    for (size_t i = 0; i < ARRAY_COUNT(offsets); i++)
        assert_int_equal(data[offsets[i] + 4095], i + 1);
    assert_int_equal(data[16384], 0);
    qcow_write_list_finish(&list);
    host_file_destroy(file);
}

/* Closes the disk, takes a snapshot inside its image and opens it again. */
static void take_snapshot(struct fixture *fixture)
{
    ASSERT_OK(block_close(fixture->disk));
    ASSERT_OK(host_file_fake_create(fixture->bytes, fixture->len, &fixture->file));
    free(fixture->bytes);
    host_file_fake_keep(fixture->file, (void **)&fixture->bytes, &fixture->len);
    ASSERT_OK(qcow_snapshot_create(fixture->file, "before", 0));
    ASSERT_OK(qcow_image_open(fixture->file, false, &fixture->disk));
}

TEST(a_flush_with_a_copied_table_makes_two_barriers)
{
    struct fixture fixture;

    set_up(&fixture);
    for (uint64_t part = 0; part < 8; part++)
        ASSERT_OK(write_part(&fixture, part, 1));
    take_snapshot(&fixture);
    ASSERT_OK(write_part(&fixture, 0, 2));
    assert_int_equal(syncs_of_flush(&fixture), 2);
    ASSERT_OK(block_discard(fixture.disk, 2 * 4096, 4096));
    ASSERT_OK(write_part(&fixture, 3, 2));
    assert_int_equal(syncs_of_flush(&fixture), 2);
    ASSERT_OK(write_part(&fixture, 3, 3));
    assert_int_equal(syncs_of_flush(&fixture), 1);
    ASSERT_OK(block_close(fixture.disk));

    struct qcow_view view;
    uint8_t sector[512];
    enum qcow_sector kind;
    assert_true(qcow_checker_snapshot_view(fixture.bytes, fixture.len, 0, &view));
    for (uint64_t part = 0; part < 8; part++) {
        qcow_view_read(&view, part * PART_BYTES, 1, sector, &kind);
        assert_int_equal(sector[0], 1);
    }
    struct qcow_verdict verdict = qcow_checker_run(fixture.bytes, fixture.len);
    assert_int_equal(verdict.errors + verdict.leaks, 0);
    free(fixture.bytes);
}

/* A file whose barriers wait until they may pass. */
struct gated_file {
    struct host_file base;
    struct host_file *next; /* owned */
    struct lock lock;
    struct lock_condition changed;
    bool is_open GUARDED_BY(&lock);
    unsigned waiting GUARDED_BY(&lock);
    unsigned syncs GUARDED_BY(&lock);
};

static struct gated_file *gated_of(struct host_file *file)
{
    return CONTAINER_OF(file, struct gated_file, base);
}

static struct err *gated_read(struct host_file *file, const struct io_vector *to, uint64_t offset)
{
    return host_file_read(gated_of(file)->next, to, offset);
}

static struct err *gated_write(struct host_file *file, const struct io_vector *from,
                               uint64_t offset)
{
    return host_file_write(gated_of(file)->next, from, offset);
}

static struct err *gated_sync(struct host_file *file)
{
    struct gated_file *gated = gated_of(file);

    lock_acquire(&gated->lock);
    gated->syncs++;
    gated->waiting++;
    lock_condition_broadcast(&gated->changed);
    while (!gated->is_open)
        lock_condition_wait(&gated->changed, &gated->lock);
    gated->waiting--;
    lock_release(&gated->lock);
    return host_file_sync(gated->next);
}

static struct err *gated_size(struct host_file *file, uint64_t *out_bytes)
{
    return host_file_size(gated_of(file)->next, out_bytes);
}

static void gated_destroy(struct host_file *file)
{
    host_file_destroy(gated_of(file)->next);
}

/* What the test does not need is not there. */
static const struct host_file_ops gated_ops = {
    .name = "gated",
    .read = gated_read,
    .write = gated_write,
    .sync = gated_sync,
    .size = gated_size,
    .destroy = gated_destroy,
};

static void flush_in_thread(void *argument)
{
    struct block *disk = argument;

    ASSERT_OK(block_flush(disk));
}

static void set_gate(struct gated_file *gated, bool is_open)
{
    lock_acquire(&gated->lock);
    gated->is_open = is_open;
    lock_condition_broadcast(&gated->changed);
    lock_release(&gated->lock);
}

/* Who flushes while a flush runs is not served by it, but all of them by the next. */
TEST(flushes_that_wait_for_one_share_the_next)
{
    struct fixture fixture;
    struct gated_file gated = {.base = {.ops = &gated_ops, .path = "gated"}};
    struct thread *threads[5];

    set_up(&fixture);
    ASSERT_OK(write_part(&fixture, 0, 1));
    ASSERT_OK(block_close(fixture.disk));
    lock_init(&gated.lock, LOCK_TEST);
    lock_condition_init(&gated.changed);
    ASSERT_OK(host_file_fake_create(fixture.bytes, fixture.len, &gated.next));
    ASSERT_OK(qcow_image_open(&gated.base, false, &fixture.disk));

    ASSERT_OK(write_part(&fixture, 0, 2));
    ASSERT_OK(thread_create(ROLE_TEST, 0, flush_in_thread, fixture.disk, &threads[0]));
    lock_acquire(&gated.lock);
    while (gated.waiting == 0)
        lock_condition_wait(&gated.changed, &gated.lock);
    lock_release(&gated.lock);
    ASSERT_OK(write_part(&fixture, 0, 3));
    for (unsigned i = 1; i < ARRAY_COUNT(threads); i++)
        ASSERT_OK(thread_create(ROLE_TEST, i, flush_in_thread, fixture.disk, &threads[i]));
    set_gate(&gated, true);
    for (unsigned i = 0; i < ARRAY_COUNT(threads); i++)
        thread_join(threads[i]);

    lock_acquire(&gated.lock);
    assert_int_equal(gated.syncs, 2);
    lock_release(&gated.lock);
    ASSERT_OK(block_close(fixture.disk));
    lock_condition_finish(&gated.changed);
    lock_finish(&gated.lock);
    free(fixture.bytes);
}

/* Writes within the length of a file need not wait for each other at the host. */
TEST(what_is_reserved_lies_within_the_file_until_it_is_closed)
{
    struct fixture fixture;
    uint64_t bytes;

    set_up(&fixture);
    ASSERT_OK(write_part(&fixture, 0, 1));
    struct qcow_run reserved = reserved_of(&fixture);
    assert_true(reserved.count > 0);
    ASSERT_OK(host_file_size(fixture.file, &bytes));
    assert_int_equal(bytes, (reserved.first + reserved.count) << CLUSTER_BITS);
    ASSERT_OK(block_close(fixture.disk));
    assert_int_equal(fixture.len, reserved.first << CLUSTER_BITS);
    free(fixture.bytes);
}

TEST(a_discarded_cluster_is_used_again_only_after_a_flush)
{
    struct fixture fixture;

    set_up(&fixture);
    for (uint64_t part = 0; part < 8; part++)
        ASSERT_OK(write_part(&fixture, part, 1));
    ASSERT_OK(block_flush(fixture.disk));

    uint64_t next = reserved_of(&fixture).first;
    ASSERT_OK(block_discard(fixture.disk, 0, 2 * 4096));
    ASSERT_OK(write_part(&fixture, 100, 2));
    assert_int_equal(reserved_of(&fixture).first, next + 1);

    ASSERT_OK(block_flush(fixture.disk));
    ASSERT_OK(write_part(&fixture, 200, 3));
    ASSERT_OK(write_part(&fixture, 210, 3));
    assert_int_equal(reserved_of(&fixture).first, next + 1);
    ASSERT_OK(block_close(fixture.disk));
    assert_int_equal(qcow_checker_run(fixture.bytes, fixture.len).leaks, 0);
    free(fixture.bytes);
}

TEST(a_guest_that_never_flushes_does_not_grow_the_file_for_ever)
{
    struct fixture fixture;
    uint64_t size = 0;

    set_up(&fixture);
    for (unsigned i = 0; i < 20000; i++) {
        ASSERT_OK(write_part(&fixture, 0, 1));
        ASSERT_OK(block_discard(fixture.disk, 0, (uint64_t)1 << CLUSTER_BITS));
    }
    ASSERT_OK(host_file_size(fixture.file, &size));
    assert_true(size < (uint64_t)5000 << CLUSTER_BITS);
    ASSERT_OK(block_close(fixture.disk));
    assert_int_equal(qcow_checker_run(fixture.bytes, fixture.len).leaks, 0);
    free(fixture.bytes);
}

TEST(a_failed_barrier_is_never_taken_back)
{
    struct fixture fixture;

    set_up(&fixture);
    ASSERT_OK(write_part(&fixture, 0, 1));
    uint64_t to_sync = 1; /* the counts are written first */
    host_file_fake_fail(fixture.file, FAKE_FAULT_IO, to_sync, 1);
    assert_fails(block_flush(fixture.disk), ERR_IO);
    assert_fails(block_flush(fixture.disk), ERR_IO);
    assert_fails(block_close(fixture.disk), ERR_IO);
    assert_int_equal(qcow_checker_run(fixture.bytes, fixture.len).errors, 0);
    free(fixture.bytes);
}

TEST(a_write_that_fails_in_a_flush_is_made_by_the_next)
{
    struct fixture fixture;

    set_up(&fixture);
    ASSERT_OK(write_part(&fixture, 0, 1));
    host_file_fake_fail(fixture.file, FAKE_FAULT_SHORT_WRITE, 0, 1);
    assert_fails(block_flush(fixture.disk), ERR_IO);
    assert_int_equal(syncs_of_flush(&fixture), 2);
    ASSERT_OK(block_close(fixture.disk));
    struct qcow_verdict verdict = qcow_checker_run(fixture.bytes, fixture.len);
    assert_int_equal(verdict.errors, 0);
    assert_int_equal(verdict.leaks, 0);
    free(fixture.bytes);
}

/* After a request that failed its bytes are old or new. */
static void learn_part(struct fixture *fixture, uint8_t *model, uint64_t part, uint8_t value)
{
    uint8_t data[PART_BYTES];
    struct iovec iov = {data, sizeof(data)};

    ASSERT_OK(block_read(fixture->disk, &iov, 1, part * PART_BYTES));
    for (size_t i = 0; i < sizeof(data); i++) {
        uint8_t *known = model + part * PART_BYTES + i;
        assert_true(data[i] == *known || data[i] == value);
        *known = data[i];
    }
}

static void sweep_request(struct fixture *fixture, uint8_t *model, unsigned step)
{
    uint64_t part = (uint64_t)step * 37 % PART_COUNT;
    if (step % 3 == 0)
        part &= ~(uint64_t)1;
    uint8_t value = step % 5 == 3 ? 0 : (uint8_t)(step + 1);
    struct err *err;

    if (step % 7 == 6) {
        err_free(block_flush(fixture->disk));
        return;
    }
    if (step % 5 == 3)
        err = block_write_zeroes(fixture->disk, part * PART_BYTES, PART_BYTES, step % 2 == 0);
    else
        err = write_part(fixture, part, value);
    if (err == NULL)
        memset(model + part * PART_BYTES, value, PART_BYTES);
    else
        learn_part(fixture, model, part, value);
    err_free(err);
}

static void check_sweep(const struct fixture *fixture, const uint8_t *model, bool is_complete)
{
    struct qcow_verdict verdict = qcow_checker_run(fixture->bytes, fixture->len);

    if (verdict.errors > 0)
        fail_msg("%s", verdict.first);
    for (uint64_t at = 0; is_complete && at < DISK_BYTES; at += 512) {
        uint8_t sector[512] = {0};
        if (qcow_checker_read(fixture->bytes, fixture->len, at, sector) != QCOW_SECTOR_DATA)
            memset(sector, 0, sizeof(sector));
        assert_memory_equal(sector, model + at, sizeof(sector));
    }
}

static uint64_t sweep(enum fake_fault fault, uint64_t ordinal, uint64_t count)
{
    struct fixture fixture;
    uint8_t *model = calloc(1, DISK_BYTES);

    assert_non_null(model);
    set_up(&fixture);
    uint64_t first = host_file_fake_operations(fixture.file);
    host_file_fake_fail(fixture.file, fault, ordinal, count);
    for (unsigned step = 0; step < 120; step++)
        sweep_request(&fixture, model, step);
    uint64_t operations = host_file_fake_operations(fixture.file) - first;
    struct err *err = block_close(fixture.disk);
    check_sweep(&fixture, model, err == NULL);
    err_free(err);
    free(fixture.bytes);
    free(model);
    return operations;
}

TEST(every_host_operation_may_fail_once)
{
    uint64_t operations = sweep(FAKE_FAULT_NONE, 0, 0);

    assert_true(operations > 100);
    for (uint64_t ordinal = 0; ordinal < operations; ordinal++) {
        (void)sweep(FAKE_FAULT_IO, ordinal, 1);
        (void)sweep(FAKE_FAULT_SHORT_WRITE, ordinal, 1);
        if (ordinal % 8 == 0)
            (void)sweep(FAKE_FAULT_SHORT_WRITE, ordinal, UINT64_MAX / 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flush_makes_at_most_two_barriers),
        cmocka_unit_test(most_allocations_write_no_counts),
        cmocka_unit_test(adjacent_metadata_is_one_write),
        cmocka_unit_test(a_flush_with_a_copied_table_makes_two_barriers),
        cmocka_unit_test(flushes_that_wait_for_one_share_the_next),
        cmocka_unit_test(what_is_reserved_lies_within_the_file_until_it_is_closed),
        cmocka_unit_test(a_discarded_cluster_is_used_again_only_after_a_flush),
        cmocka_unit_test(a_guest_that_never_flushes_does_not_grow_the_file_for_ever),
        cmocka_unit_test(a_failed_barrier_is_never_taken_back),
        cmocka_unit_test(a_write_that_fails_in_a_flush_is_made_by_the_next),
        cmocka_unit_test(every_host_operation_may_fail_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
