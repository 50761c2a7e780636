/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_blk_test.c - a disk as its driver uses it, over a disk in memory. */
#include <linux/virtio_blk.h>
#include <sched.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "storage/testing/gated_block_fixture.h"
#include "vmm/devices/virtio/virtio_blk_request_fixture.h"

TEST(the_configuration_shows_the_disk)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(virtio_driver_fake_config(&bench.driver, 0, 8), DISK_BYTES / 512);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 12, 4), 254);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 20, 4), 512);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 56, 1), 1);
    bench_finish(&bench);
}

TEST(a_larger_disk_is_told_to_the_driver)
{
    struct bench bench;
    struct block *larger = NULL;
    bench_init(&bench);
    ASSERT_OK(block_memory_create(2 * DISK_BYTES, &larger));

    bench.blk->ops->stop(bench.blk);
    virtio_blk_grow(bench.blk, bench.disk);
    assert_int_equal(virtio_driver_fake_config_interrupts(&bench.driver), 0);
    virtio_blk_grow(bench.blk, larger);
    ASSERT_OK(bench.blk->ops->start(bench.blk));

    assert_int_equal(virtio_driver_fake_config_interrupts(&bench.driver), 1);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 0, 8), 2 * DISK_BYTES / 512);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 2 * DISK_BYTES / 512 - 1, to_disk(512)),
                     VIRTIO_BLK_S_OK);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 2 * DISK_BYTES / 512, to_disk(512)),
                     VIRTIO_BLK_S_IOERR);
    bench_finish(&bench);
    ASSERT_OK(block_close(larger));
}

TEST(what_is_written_is_read_back)
{
    struct bench bench;
    uint8_t data[1024];
    uint32_t written = 0;
    bench_init(&bench);
    memset(data, 0x5a, sizeof(data));
    assert_true(guest_write(bench.memory, gpa(DATA_AT), data, sizeof(data)));

    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 3, to_disk(1024)), VIRTIO_BLK_S_OK);
    assert_int_equal(block_memory_bytes(bench.disk)[3 * 512], 0x5a);
    memset(data, 0, sizeof(data));
    assert_true(guest_write(bench.memory, gpa(DATA_AT), data, sizeof(data)));
    submit(&bench, VIRTIO_BLK_T_IN, 3, from_disk(1024));
    wait_used(&bench, &written);

    assert_int_equal(written, 1025);
    assert_true(guest_read(bench.memory, gpa(DATA_AT), data, sizeof(data)));
    assert_int_equal(data[0], 0x5a);
    assert_int_equal(data[1023], 0x5a);
    bench.blk->ops->stop(bench.blk); /* the interrupt follows the used entry */
    assert_true(virtio_driver_fake_interrupts(&bench.driver, 0) >= 1);
    bench_finish(&bench);
}

TEST(a_flush_reaches_the_image)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(request(&bench, VIRTIO_BLK_T_FLUSH, 0, nothing), VIRTIO_BLK_S_OK);

    assert_int_equal(block_memory_flush_count(bench.disk), 1);
    bench_finish(&bench);
}

TEST(the_serial_is_the_disks_id)
{
    struct bench bench;
    char id[20];
    bench_init(&bench);

    assert_int_equal(request(&bench, VIRTIO_BLK_T_GET_ID, 0, from_disk(20)), VIRTIO_BLK_S_OK);

    assert_true(guest_read(bench.memory, gpa(DATA_AT), id, sizeof(id)));
    assert_string_equal(id, "system");
    bench_finish(&bench);
}

TEST(requests_outside_the_disk_fail_and_touch_nothing)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, DISK_BYTES / 512, to_disk(512)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_IN, DISK_BYTES / 512 - 1, from_disk(1024)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_IN, UINT64_MAX / 512, from_disk(512)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(100)), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_IN, 0, nothing), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&bench, 77, 0, nothing), VIRTIO_BLK_S_UNSUPP);

    bench_finish(&bench);
}

static uint8_t clear(struct bench *bench, uint32_t type, uint64_t sector, uint32_t sectors,
                     uint32_t flags)
{
    uint8_t segment[16];
    struct writer out = writer_of(segment, sizeof(segment));

    writer_le64(&out, sector);
    writer_le32(&out, sectors);
    writer_le32(&out, flags);
    assert_true(guest_write(bench->memory, gpa(DATA_AT), segment, sizeof(segment)));
    return request(bench, type, 0, to_disk(sizeof(segment)));
}

TEST(zeroing_and_discarding_are_bounded)
{
    struct bench bench;
    bench_init(&bench);
    memset(block_memory_bytes(bench.disk), 0xee, DISK_BYTES);

    assert_int_equal(clear(&bench, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(block_memory_bytes(bench.disk)[8 * 512 - 1], 0xee);
    assert_int_equal(block_memory_bytes(bench.disk)[8 * 512], 0);
    assert_int_equal(block_memory_bytes(bench.disk)[16 * 512], 0xee);
    assert_int_equal(clear(&bench, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(clear(&bench, VIRTIO_BLK_T_DISCARD, 0, 8, 1), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(clear(&bench, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(clear(&bench, VIRTIO_BLK_T_DISCARD, 2047, 2, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(clear(&bench, VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);

    bench_finish(&bench);
}

TEST(a_failing_image_is_an_io_error_of_the_guest)
{
    struct bench bench;
    bench_init(&bench);
    block_memory_set_failing(bench.disk, true);

    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_FLUSH, 0, nothing), VIRTIO_BLK_S_IOERR);
    block_memory_set_failing(bench.disk, false);

    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_OK);
    bench_finish(&bench);
}

TEST(a_read_only_disk_refuses_changes)
{
    struct bench bench;
    bench_init_bare(&bench, true);
    ASSERT_OK(virtio_blk_attach(bench.blk, bench.disk));
    ASSERT_OK(bench.blk->ops->start(bench.blk));
    bench_drive(&bench);

    assert_true((virtio_driver_fake_features(&bench.driver) >> VIRTIO_BLK_F_RO & 1) != 0);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_IOERR);
    assert_int_equal(clear(&bench, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&bench, VIRTIO_BLK_T_IN, 0, from_disk(512)), VIRTIO_BLK_S_OK);

    bench_finish(&bench);
}

TEST(a_disk_without_an_image_does_not_start)
{
    struct bench bench;
    bench_init_bare(&bench, false);

    assert_fails(bench.blk->ops->start(bench.blk), ERR_STATE);

    bench_finish(&bench);
}

TEST(every_request_of_a_deep_queue_is_done_once)
{
    struct bench bench;
    uint32_t written = 0;
    bench_init(&bench);

    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 16; i++)
            submit(&bench, VIRTIO_BLK_T_IN, i, from_disk(512));
        for (unsigned i = 0; i < 16; i++)
            wait_used(&bench, &written);
    }

    uint32_t head;
    assert_false(virtqueue_driver_fake_used(&bench.rings[0], &head, &written));
    bench_finish(&bench);
}

/* Eight writes, of which at least four have come to the disk. */
static void bench_init_gated(struct bench *bench, struct gated_block *gate)
{
    gate_init(gate, DISK_BYTES);
    bench_init_bare(bench, false);
    ASSERT_OK(virtio_blk_attach(bench->blk, &gate->base));
    ASSERT_OK(bench->blk->ops->start(bench->blk));
    bench_drive(bench);
    for (unsigned i = 0; i < 8; i++)
        submit(bench, VIRTIO_BLK_T_OUT, i, to_disk(512));
    gate_wait_entered(gate, 4);
}

TEST(a_stop_waits_for_what_is_in_flight_and_leaves_the_rest_in_the_queue)
{
    struct bench bench;
    struct gated_block gate;
    uint32_t head;
    uint32_t written;
    bench_init_gated(&bench, &gate);
    struct thread *opener = NULL;
    ASSERT_OK(thread_create(ROLE_TEST, 0, gate_open, &gate, &opener));
    bench.blk->ops->stop(bench.blk);
    thread_join(opener);

    unsigned done = 0;
    while (virtqueue_driver_fake_used(&bench.rings[0], &head, &written))
        done++;
    assert_int_equal(done, gate_entered(&gate));
    assert_in_range(done, 4, 8);
    ASSERT_OK(bench.blk->ops->start(bench.blk));
    for (; done < 8; done++)
        wait_used(&bench, &written);
    bench.blk->ops->stop(bench.blk);
    assert_int_equal(gate_entered(&gate), 8);
    bench_finish(&bench);
    gate_finish(&gate);
}

/* CVE-2026-45782 of another program: what was in flight at a reset ended in memory that was gone.
 */
TEST(a_reset_waits_for_what_is_in_flight_and_forgets_the_rest)
{
    struct bench bench;
    struct gated_block gate;
    uint32_t head;
    uint32_t written;
    bench_init_gated(&bench, &gate);
    struct thread *opener = NULL;
    ASSERT_OK(thread_create(ROLE_TEST, 0, gate_open, &gate, &opener));
    virtio_driver_fake_write(&bench.driver, 20, 0,
                             1); /* the status: a reset, which takes a while */
    thread_join(opener);
    bench_drive(&bench);

    unsigned entered = gate_entered(&gate);
    assert_in_range(entered, 4, 8);
    assert_false(virtqueue_driver_fake_used(&bench.rings[0], &head, &written));
    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_OK);
    bench.blk->ops->stop(bench.blk);
    assert_int_equal(gate_entered(&gate), entered + 1);
    assert_false(virtqueue_driver_fake_used(&bench.rings[0], &head, &written));
    bench_finish(&bench);
    gate_finish(&gate);
}

TEST(a_broken_queue_asks_for_a_reset_and_then_works_again)
{
    struct bench bench;
    bench_init(&bench);

    virtqueue_driver_fake_offer(&bench.rings[0], 64);
    virtio_driver_fake_notify(&bench.driver, 0);
    while ((virtio_driver_fake_status(&bench.driver) & 0x40) == 0)
        (void)sched_yield();
    bench_drive(&bench);

    assert_int_equal(request(&bench, VIRTIO_BLK_T_OUT, 0, to_disk(512)), VIRTIO_BLK_S_OK);
    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_shows_the_disk),
        cmocka_unit_test(a_larger_disk_is_told_to_the_driver),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_flush_reaches_the_image),
        cmocka_unit_test(the_serial_is_the_disks_id),
        cmocka_unit_test(requests_outside_the_disk_fail_and_touch_nothing),
        cmocka_unit_test(zeroing_and_discarding_are_bounded),
        cmocka_unit_test(a_failing_image_is_an_io_error_of_the_guest),
        cmocka_unit_test(a_read_only_disk_refuses_changes),
        cmocka_unit_test(a_disk_without_an_image_does_not_start),
        cmocka_unit_test(every_request_of_a_deep_queue_is_done_once),
        cmocka_unit_test(a_stop_waits_for_what_is_in_flight_and_leaves_the_rest_in_the_queue),
        cmocka_unit_test(a_reset_waits_for_what_is_in_flight_and_forgets_the_rest),
        cmocka_unit_test(a_broken_queue_asks_for_a_reset_and_then_works_again),
    };
    int failed = cmocka_run_group_tests_name("the best engine", tests, NULL, NULL);

    engine = IO_ENGINE_THREADS;
    return failed + cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
