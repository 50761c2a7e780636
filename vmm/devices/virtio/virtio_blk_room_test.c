/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_blk_room_test.c - what a disk does when the host can not, and what it is not to do at
 * once.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/unit_test.h"
#include "vmm/devices/virtio/virtio_blk_request_fixture.h"

/* A disk on a host that may be full: zeroing needs no room. */
struct full_block {
    struct block base;
    struct block *disk;
    atomic_int errnum; /* a value alone: what writes fail with; 0: they do not */
    atomic_uint tries; /* a counter alone */
};

static struct err *full_write(struct block *block, const struct iovec *iovs, int iov_count,
                              uint64_t offset)
{
    struct full_block *full = CONTAINER_OF(block, struct full_block, base);
    int errnum = atomic_load(&full->errnum);

    atomic_fetch_add(&full->tries, 1);
    return errnum != 0 ? err_errno(errnum, "write at %llu", (unsigned long long)offset)
                       : block_write(full->disk, iovs, iov_count, offset);
}

static struct err *full_read(struct block *block, const struct iovec *iovs, int iov_count,
                             uint64_t offset)
{
    return block_read(CONTAINER_OF(block, struct full_block, base)->disk, iovs, iov_count, offset);
}

static struct err *full_write_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                     bool may_unmap)
{
    return block_write_zeroes(CONTAINER_OF(block, struct full_block, base)->disk, offset, len,
                              may_unmap);
}

static const struct block_ops full_ops = {
    .format = "full", .read = full_read, .write = full_write, .write_zeroes = full_write_zeroes};

static void bench_init_full(struct bench *bench, struct full_block *full, int errnum)
{
    bench_init_bare(bench, false);
    *full = (struct full_block){.base = {.ops = &full_ops, .virtual_bytes = DISK_BYTES},
                                .disk = bench->disk,
                                .errnum = errnum};
    ASSERT_OK(virtio_blk_attach(bench->blk, &full->base));
    ASSERT_OK(bench->blk->ops->start(bench->blk));
    bench_drive(bench);
    assert_true(guest_write(bench->memory, gpa(DATA_AT), "full", 4));
    more = (struct virtio_blk_options){.instance = 0};
}

static void wait_problem(struct bench *bench, const char *wanted)
{
    char text[512] = "";

    while (strstr(text, wanted) == NULL) {
        (void)sched_yield();
        virtio_blk_problem(bench->blk, text, sizeof(text));
    }
}

static bool has_problem(struct bench *bench)
{
    char text[512];

    virtio_blk_problem(bench->blk, text, sizeof(text));
    return text[0] != '\0';
}

TEST(a_write_without_room_waits_until_there_is)
{
    struct bench bench;
    struct full_block full;
    uint32_t head, written;
    bench_init_full(&bench, &full, ENOSPC);

    assert_false(virtio_blk_retry(bench.blk));
    submit(&bench, VIRTIO_BLK_T_OUT, 1, to_disk(512));
    wait_problem(&bench, "disk 'system' has no room");
    assert_false(virtqueue_driver_fake_used(&bench.rings[0], &head, &written));
    assert_int_equal(request(&bench, VIRTIO_BLK_T_IN, 5, from_disk(512)), VIRTIO_BLK_S_OK);
    assert_true(guest_write(bench.memory, gpa(DATA_AT), "full", 4));
    unsigned tries = atomic_load(&full.tries);
    assert_true(virtio_blk_retry(bench.blk));
    while (atomic_load(&full.tries) == tries)
        (void)sched_yield();
    assert_true(has_problem(&bench));

    atomic_store(&full.errnum, 0);
    (void)virtio_blk_retry(bench.blk);
    wait_used(&bench, &written);
    uint8_t status = 0xff;
    assert_true(guest_read(bench.memory, gpa(STATUS_AT), &status, 1));
    assert_int_equal(status, VIRTIO_BLK_S_OK);
    assert_memory_equal(block_memory_bytes(bench.disk) + 512, "full", 4);
    bench.blk->ops->stop(bench.blk);
    assert_false(has_problem(&bench));
    bench_finish(&bench);
}

TEST(what_waits_for_room_is_the_guests_again_after_a_stop)
{
    struct bench bench;
    struct full_block full;
    uint32_t head, written;
    bench_init_full(&bench, &full, EDQUOT);

    for (unsigned i = 0; i < 3; i++)
        submit(&bench, VIRTIO_BLK_T_OUT, i, to_disk(512));
    wait_problem(&bench, "has no room");
    bench.blk->ops->stop(bench.blk);
    assert_false(virtqueue_driver_fake_used(&bench.rings[0], &head, &written));
    assert_false(has_problem(&bench));
    atomic_store(&full.errnum, 0);
    ASSERT_OK(bench.blk->ops->start(bench.blk));
    for (unsigned i = 0; i < 3; i++)
        wait_used(&bench, &written);

    for (unsigned i = 0; i < 3; i++)
        assert_memory_equal(block_memory_bytes(bench.disk) + (size_t)i * 512, "full", 4);
    assert_int_equal(last_status(&bench), VIRTIO_BLK_S_OK);
    bench_finish(&bench);
}

TEST(requests_of_several_queues_wait_and_are_tried_again_together)
{
    struct bench bench;
    struct full_block full;
    more.queue_count = 3;
    bench_init_full(&bench, &full, ENOSPC);

    for (unsigned i = 0; i < 3; i++)
        submit_on(&bench, i, VIRTIO_BLK_T_OUT, i, to_disk(512));
    while (atomic_load(&full.tries) < 3)
        (void)sched_yield();
    wait_problem(&bench, "disk 'system' has no room");
    assert_int_equal(count_used(&bench), 0);

    /* The problem is there until the last queue has none. */
    atomic_store(&full.errnum, 0);
    while (virtio_blk_retry(bench.blk))
        (void)sched_yield();
    for (unsigned i = 0; i < 3; i++)
        wait_used_on(&bench, i);
    assert_false(has_problem(&bench));
    for (unsigned i = 0; i < 3; i++)
        assert_memory_equal(block_memory_bytes(bench.disk) + (size_t)i * 512, "full", 4);
    bench_finish(&bench);
}

TEST(what_is_an_error_of_the_guest_can_be_chosen)
{
    struct bench bench;
    struct full_block full;
    uint32_t written;

    bench_init_full(&bench, &full, EIO);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_IOERR);
    bench_finish(&bench);

    more.on_error = VIRTIO_BLK_REPORT;
    bench_init_full(&bench, &full, ENOSPC);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_IOERR);
    bench_finish(&bench);

    more.on_error = VIRTIO_BLK_WAIT;
    bench_init_full(&bench, &full, EIO);
    submit(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512));
    wait_problem(&bench, "does not work");
    atomic_store(&full.errnum, 0);
    (void)virtio_blk_retry(bench.blk);
    wait_used(&bench, &written);
    assert_int_equal(last_status(&bench), VIRTIO_BLK_S_OK);
    bench_finish(&bench);
}

TEST(zeros_are_noted_instead_of_written_if_wanted)
{
    struct bench bench;
    struct full_block full;
    uint8_t zeros[512] = {0};

    more.zeroes = VIRTIO_BLK_ZEROES_ON;
    more.on_error = VIRTIO_BLK_REPORT;
    bench_init_full(&bench, &full, ENOSPC);
    memset(block_memory_bytes(bench.disk), 7, 1024);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_IOERR);
    assert_true(guest_write(bench.memory, gpa(DATA_AT), zeros, sizeof(zeros)));
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_OK);

    assert_int_equal(block_memory_bytes(bench.disk)[511], 0);
    assert_int_equal(block_memory_bytes(bench.disk)[512], 7);
    bench_finish(&bench);
}

/* Time stands still, so what is not done at once is done only when the clock is moved. */
TEST(a_limit_lets_requests_wait_for_their_time)
{
    struct bench bench;
    uint32_t head, written;

    clock_fake_start(100 * NS_PER_S, 0);
    more.rates.requests_per_second = 10;
    bench_init(&bench);
    more.rates.requests_per_second = 0;
    for (unsigned i = 0; i < 4; i++)
        submit(&bench, VIRTIO_BLK_T_IN, i, from_disk(512));
    wait_used(&bench, &written); /* a tenth of a second's worth, and the one that is due */
    wait_used(&bench, &written);
    for (unsigned i = 0; i < 1000; i++)
        (void)sched_yield();
    assert_false(virtqueue_driver_fake_used(&bench.rings[0], &head, &written));
    for (unsigned i = 0; i < 2; i++) {
        clock_fake_advance(100 * NS_PER_MS);
        virtio_driver_fake_notify(&bench.driver, 0);
        wait_used(&bench, &written);
    }

    clock_fake_stop();
    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_without_room_waits_until_there_is),
        cmocka_unit_test(what_waits_for_room_is_the_guests_again_after_a_stop),
        cmocka_unit_test(requests_of_several_queues_wait_and_are_tried_again_together),
        cmocka_unit_test(what_is_an_error_of_the_guest_can_be_chosen),
        cmocka_unit_test(zeros_are_noted_instead_of_written_if_wanted),
        cmocka_unit_test(a_limit_lets_requests_wait_for_their_time),
    };
    int failed = cmocka_run_group_tests_name("the best engine", tests, NULL, NULL);

    engine = IO_ENGINE_THREADS;
    return failed + cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
