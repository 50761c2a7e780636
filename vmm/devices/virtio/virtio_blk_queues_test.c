/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_blk_queues_test.c - a disk with several queues: each is served, and the disk is still one.
 */
#include <linux/virtio_blk.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "storage/testing/gated_block_fixture.h"
#include "vmm/devices/virtio/virtio_blk_request_fixture.h"

#define QUEUES          VIRTIO_PCI_QUEUES_MAX
#define QUEUE_COUNT_AT  34u /* in the configuration */
#define COMMON_QUEUES   18u /* in the transport's */
#define HAS_MQ(bench)   (virtio_driver_fake_features(&(bench)->driver) >> VIRTIO_BLK_F_MQ & 1)
#define DATA_OF(number) (DATA_AT + (number) * 0x1000u)

static struct driver_buffer piece(unsigned number, enum virtqueue_part part)
{
    return (struct driver_buffer){gpa(DATA_OF(number)), 512, part};
}

static void bench_init_queues(struct bench *bench, unsigned queue_count)
{
    more.queue_count = queue_count;
    bench_init(bench);
    more = (struct virtio_blk_options){.instance = 0};
}

TEST(the_driver_is_told_how_many_queues_there_are)
{
    struct bench bench;

    bench_init_queues(&bench, 3);
    assert_true(HAS_MQ(&bench));
    assert_int_equal(virtio_driver_fake_config(&bench.driver, QUEUE_COUNT_AT, 2), 3);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, COMMON_QUEUES, 2), 3);
    bench_finish(&bench);

    bench_init_queues(&bench, 1);
    assert_false(HAS_MQ(&bench));
    assert_int_equal(virtio_driver_fake_config(&bench.driver, QUEUE_COUNT_AT, 2), 1);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, COMMON_QUEUES, 2), 1);
    bench_finish(&bench);
}

TEST(a_driver_may_use_some_of_the_queues)
{
    struct bench bench;

    more.queue_count = QUEUES;
    bench_init_bare(&bench, false);
    more.queue_count = 0;
    ASSERT_OK(virtio_blk_attach(bench.blk, bench.disk));
    ASSERT_OK(bench.blk->ops->start(bench.blk));
    bench.queue_count = 1;
    bench_drive(&bench);

    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_OK);
    assert_int_equal(virtio_driver_fake_status(&bench.driver), 0xf);
    bench_finish(&bench);
}

/* All queues at once, each with requests of its own, and each with its own interrupt. */
TEST(each_queue_gets_back_its_own_requests)
{
    enum { ROUNDS = 50, DEEP = 4 };
    struct bench bench;
    uint8_t data[512];
    bench_init_queues(&bench, QUEUES);

    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned n = 0; n < QUEUES * DEEP; n++) {
            memset(data, (int)(round * 31 + n), sizeof(data));
            assert_true(guest_write(bench.memory, gpa(DATA_OF(n)), data, sizeof(data)));
            submit_on(&bench, n % QUEUES, VIRTIO_BLK_T_OUT, n, piece(n, VIRTQUEUE_READABLE));
        }
        for (unsigned n = 0; n < QUEUES * DEEP; n++)
            wait_used_on(&bench, n % QUEUES);
        for (unsigned n = 0; n < QUEUES * DEEP; n++)
            assert_int_equal(block_memory_bytes(bench.disk)[n * 512 + 511],
                             (uint8_t)(round * 31 + n));
    }

    bench.blk->ops->stop(bench.blk); /* the interrupt follows the used entry */
    assert_int_equal(count_used(&bench), 0);
    for (unsigned i = 0; i < QUEUES; i++)
        assert_true(virtio_driver_fake_interrupts(&bench.driver, i) >= 1);
    bench_finish(&bench);
}

/* Notes how many writes had ended when it was flushed. */
struct noting_block {
    struct block base;
    atomic_uint writes; /* a counter alone */
    atomic_uint flushed_writes;
};

static struct err *noting_write(struct block *block, const struct iovec *iovs, int iov_count,
                                uint64_t offset)
{
    (void)iovs;
    (void)iov_count;
    (void)offset;
    atomic_fetch_add(&CONTAINER_OF(block, struct noting_block, base)->writes, 1);
    return NULL;
}

static struct err *noting_flush(struct block *block)
{
    struct noting_block *noting = CONTAINER_OF(block, struct noting_block, base);

    atomic_store(&noting->flushed_writes, atomic_load(&noting->writes));
    return NULL;
}

static const struct block_ops noting_ops = {
    .format = "noting", .write = noting_write, .flush = noting_flush};

TEST(a_flush_covers_what_was_answered_before_on_any_queue)
{
    struct bench bench;
    struct noting_block noting = {.base = {.ops = &noting_ops, .virtual_bytes = DISK_BYTES}};
    more.queue_count = QUEUES;
    bench_init_bare(&bench, false);
    more.queue_count = 0;
    ASSERT_OK(virtio_blk_attach(bench.blk, &noting.base));
    ASSERT_OK(bench.blk->ops->start(bench.blk));
    bench_drive(&bench);

    for (unsigned round = 1; round <= 20; round++) {
        for (unsigned i = 0; i < QUEUES; i++)
            submit_on(&bench, i, VIRTIO_BLK_T_OUT, i, to_disk(512));
        for (unsigned i = 0; i < QUEUES; i++)
            wait_used_on(&bench, i);
        submit_on(&bench, round % QUEUES, VIRTIO_BLK_T_FLUSH, 0, nothing);
        wait_used_on(&bench, round % QUEUES);
        assert_int_equal(last_status(&bench), VIRTIO_BLK_S_OK);
        assert_int_equal(atomic_load(&noting.flushed_writes), round * QUEUES);
    }

    bench_finish(&bench);
}

/* Four writes in each queue, of which at least four in all have come to the disk. */
static void bench_init_gated(struct bench *bench, struct gated_block *gate)
{
    gate_init(gate, DISK_BYTES);
    more.queue_count = QUEUES;
    bench_init_bare(bench, false);
    more.queue_count = 0;
    ASSERT_OK(virtio_blk_attach(bench->blk, &gate->base));
    ASSERT_OK(bench->blk->ops->start(bench->blk));
    bench_drive(bench);
    for (unsigned n = 0; n < 4 * QUEUES; n++)
        submit_on(bench, n % QUEUES, VIRTIO_BLK_T_OUT, n, to_disk(512));
    gate_wait_entered(gate, 4);
}

TEST(a_stop_waits_for_what_is_in_flight_in_all_queues)
{
    struct bench bench;
    struct gated_block gate;
    struct thread *opener = NULL;
    bench_init_gated(&bench, &gate);

    ASSERT_OK(thread_create(ROLE_TEST, 0, gate_open, &gate, &opener));
    bench.blk->ops->stop(bench.blk);
    thread_join(opener);
    unsigned done = count_used(&bench);
    assert_int_equal(done, gate_entered(&gate));
    assert_in_range(done, 4, 4 * QUEUES);

    ASSERT_OK(bench.blk->ops->start(bench.blk));
    while (done < 4 * QUEUES) {
        (void)sched_yield();
        done += count_used(&bench);
    }
    bench.blk->ops->stop(bench.blk);
    assert_int_equal(gate_entered(&gate), 4 * QUEUES);
    assert_int_equal(count_used(&bench), 0);
    bench_finish(&bench);
    gate_finish(&gate);
}

/* Time stands still but for what the test adds. */
TEST(a_limit_is_the_disks_and_not_each_queues)
{
    enum { TICKS = 4 };
    struct bench bench;
    clock_fake_start(100 * NS_PER_S, 0);
    more.rates.requests_per_second = 10;
    bench_init_queues(&bench, QUEUES);

    for (unsigned n = 0; n < 4 * QUEUES; n++)
        submit_on(&bench, n % QUEUES, VIRTIO_BLK_T_IN, n, piece(n, VIRTQUEUE_WRITABLE));
    unsigned done = 0;
    for (unsigned tick = 0; tick <= TICKS; tick++) {
        if (tick > 0)
            clock_fake_advance(100 * NS_PER_MS);
        for (unsigned i = 0; i < QUEUES; i++)
            virtio_driver_fake_notify(&bench.driver, i);
        /* A tenth of a second's worth, the one that is due, and one for each tick. */
        while (done < 2 + tick) {
            (void)sched_yield();
            done += count_used(&bench);
        }
        for (unsigned i = 0; i < 200; i++)
            (void)sched_yield();
        done += count_used(&bench);
        assert_int_equal(done, 2 + tick);
    }
    bench.blk->ops->stop(bench.blk);
    assert_int_equal(count_used(&bench), 0);

    clock_fake_stop();
    bench_finish(&bench);
}

/* Under the first limit the next request could begin in minutes: without being told, its queue
 * would sleep until then. */
TEST(limits_change_for_requests_that_wait)
{
    struct bench bench;
    unsigned done = 0;
    more.rates.bytes_per_second = 1;
    bench_init_queues(&bench, QUEUES);

    for (unsigned n = 0; n < 4 * QUEUES; n++)
        submit_on(&bench, n % QUEUES, VIRTIO_BLK_T_IN, n, piece(n, VIRTQUEUE_WRITABLE));
    for (; done < 1; done += count_used(&bench))
        (void)sched_yield();
    virtio_blk_set_rates(bench.blk, (struct virtio_blk_rates){0, 2});
    for (; done < 2; done += count_used(&bench))
        (void)sched_yield();
    assert_int_equal(done, 2);
    virtio_blk_set_rates(bench.blk, (struct virtio_blk_rates){0, 0});
    for (; done < 4 * QUEUES; done += count_used(&bench))
        (void)sched_yield();

    virtio_blk_set_rates(bench.blk, (struct virtio_blk_rates){0, 1});
    for (unsigned n = 0; n < 2 * QUEUES; n++)
        submit_on(&bench, n % QUEUES, VIRTIO_BLK_T_IN, n, piece(n, VIRTQUEUE_WRITABLE));
    for (done = 0; done < 1; done += count_used(&bench))
        (void)sched_yield();
    bench.blk->ops->stop(bench.blk);
    assert_int_equal(done + count_used(&bench), 1);

    /* A stopped disk hears of it, too. */
    virtio_blk_set_rates(bench.blk, (struct virtio_blk_rates){1000000, 0});
    ASSERT_OK(bench.blk->ops->start(bench.blk));
    for (; done < 2 * QUEUES; done += count_used(&bench))
        (void)sched_yield();
    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_driver_is_told_how_many_queues_there_are),
        cmocka_unit_test(a_driver_may_use_some_of_the_queues),
        cmocka_unit_test(each_queue_gets_back_its_own_requests),
        cmocka_unit_test(a_flush_covers_what_was_answered_before_on_any_queue),
        cmocka_unit_test(a_stop_waits_for_what_is_in_flight_in_all_queues),
        cmocka_unit_test(a_limit_is_the_disks_and_not_each_queues),
        cmocka_unit_test(limits_change_for_requests_that_wait),
    };
    int failed = cmocka_run_group_tests_name("the best engine", tests, NULL, NULL);

    engine = IO_ENGINE_THREADS;
    return failed + cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
