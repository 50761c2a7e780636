/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_blk_state_test.c - a disk moves with its queue, and states of other disks are refused. */
#include <linux/virtio_blk.h>
#include <sched.h>
#include <string.h>

#include "base/bytes.h"
#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "storage/block_memory.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/devices/virtio/virtio_driver_fake.h"

#define RAM_BYTES  (4 * MIB)
#define DISK_BYTES (1 * MIB)

struct bench {
    struct device_host_fake fake;
    struct pci_bus *bus;
    struct block *disk;
    struct device *blk;
};

static void bench_init_queues(struct bench *bench, struct guest_memory *memory, bool is_read_only,
                              unsigned queue_count)
{
    const struct virtio_blk_options options = {
        .serial = "system", .is_read_only = is_read_only, .queue_count = queue_count};

    device_host_fake_init(&bench->fake, memory);
    ASSERT_OK(pci_bus_create(&bench->fake.host, &bench->bus));
    ASSERT_OK(virtio_blk_create(&bench->fake.host, bench->bus, &options, &bench->blk));
    ASSERT_OK(block_memory_create(DISK_BYTES, &bench->disk));
}

static void bench_init(struct bench *bench, struct guest_memory *memory, bool is_read_only)
{
    bench_init_queues(bench, memory, is_read_only, 1);
}

static void bench_finish(struct bench *bench)
{
    bench->blk->ops->destroy(bench->blk);
    ASSERT_OK(block_close(bench->disk));
    struct device *bus = pci_bus_device(bench->bus);
    bus->ops->destroy(bus);
    device_host_fake_finish(&bench->fake);
}

static void flush_submit(struct guest_memory *memory, struct virtqueue_driver_fake *rings)
{
    uint8_t header[16];
    struct writer out = writer_of(header, sizeof(header));
    gpa_t at = gpa(0x100000 + rings->descriptors.value); /* each queue has its own */
    const struct driver_buffer buffers[] = {{at, 16, VIRTQUEUE_READABLE},
                                            {gpa(at.value + 16), 1, VIRTQUEUE_WRITABLE}};

    writer_le32(&out, VIRTIO_BLK_T_FLUSH);
    writer_le32(&out, 0);
    writer_le64(&out, 0);
    assert_true(guest_write(memory, at, header, sizeof(header)));
    (void)virtqueue_driver_fake_add(rings, buffers, 2);
}

TEST(a_request_that_waits_is_done_once_by_the_target)
{
    struct guest_memory *memory = NULL;
    struct bench source;
    struct bench target;
    struct virtio_driver_fake driver;
    struct virtqueue_driver_fake rings;
    uint32_t head = 0;
    uint32_t written = 0;
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &memory));
    bench_init(&source, memory, false);
    bench_init(&target, memory, false);
    ASSERT_OK(virtio_blk_attach(source.blk, source.disk));
    ASSERT_OK(source.blk->ops->start(source.blk));
    virtio_driver_fake_init(&driver, &source.fake, 1);
    virtqueue_driver_fake_init(&rings, memory, gpa(0x10000), 64);
    assert_true(virtio_driver_fake_negotiate(&driver, virtio_driver_fake_features(&driver)));
    virtio_driver_fake_set_queue(&driver, 0, &rings);
    virtio_driver_fake_ready(&driver);
    flush_submit(memory, &rings);
    virtio_driver_fake_notify(&driver, 0);
    while (!virtqueue_driver_fake_used(&rings, &head, &written))
        (void)sched_yield();

    source.blk->ops->stop(source.blk);
    flush_submit(memory, &rings);
    ASSERT_OK(device_host_fake_move(source.blk, target.blk));
    ASSERT_OK(virtio_blk_attach(target.blk, target.disk));
    ASSERT_OK(target.blk->ops->start(target.blk));
    while (!virtqueue_driver_fake_used(&rings, &head, &written))
        (void)sched_yield();
    target.blk->ops->stop(target.blk);

    assert_int_equal(block_memory_flush_count(source.disk), 1);
    assert_int_equal(block_memory_flush_count(target.disk), 1);
    assert_false(virtqueue_driver_fake_used(&rings, &head, &written));
    bench_finish(&source);
    bench_finish(&target);
    guest_memory_destroy(memory);
}

/* Each queue has had a request, and holds another when the disk moves. */
TEST(every_queue_goes_on_where_it_was)
{
    enum { QUEUES = 3 };
    struct guest_memory *memory = NULL;
    struct bench source, target;
    struct virtio_driver_fake driver;
    struct virtqueue_driver_fake rings[QUEUES];
    uint32_t head, written;
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &memory));
    bench_init_queues(&source, memory, false, QUEUES);
    bench_init_queues(&target, memory, false, QUEUES);
    ASSERT_OK(virtio_blk_attach(source.blk, source.disk));
    ASSERT_OK(source.blk->ops->start(source.blk));
    virtio_driver_fake_init(&driver, &source.fake, 1);
    assert_true(virtio_driver_fake_negotiate(&driver, virtio_driver_fake_features(&driver)));
    for (unsigned i = 0; i < QUEUES; i++) {
        virtqueue_driver_fake_init(&rings[i], memory, gpa(0x10000 * (i + 1)), 64);
        virtio_driver_fake_set_queue(&driver, i, &rings[i]);
    }
    virtio_driver_fake_ready(&driver);
    for (unsigned i = 0; i < QUEUES; i++) {
        flush_submit(memory, &rings[i]);
        virtio_driver_fake_notify(&driver, i);
        while (!virtqueue_driver_fake_used(&rings[i], &head, &written))
            (void)sched_yield();
    }

    source.blk->ops->stop(source.blk);
    for (unsigned i = 0; i < QUEUES; i++)
        flush_submit(memory, &rings[i]);
    ASSERT_OK(device_host_fake_move(source.blk, target.blk));
    ASSERT_OK(virtio_blk_attach(target.blk, target.disk));
    ASSERT_OK(target.blk->ops->start(target.blk));
    for (unsigned i = 0; i < QUEUES; i++)
        while (!virtqueue_driver_fake_used(&rings[i], &head, &written))
            (void)sched_yield();
    target.blk->ops->stop(target.blk);

    assert_int_equal(block_memory_flush_count(source.disk), QUEUES);
    assert_int_equal(block_memory_flush_count(target.disk), QUEUES);
    bench_finish(&source);
    bench_finish(&target);
    guest_memory_destroy(memory);
}

TEST(a_state_with_another_number_of_queues_is_refused)
{
    struct guest_memory *memory = NULL;
    struct bench one, two;
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &memory));
    bench_init_queues(&one, memory, false, 0);
    bench_init_queues(&two, memory, false, 2);

    struct err *err = device_host_fake_move(two.blk, one.blk);
    assert_non_null(err);
    assert_int_equal(err_kind(err), ERR_INCOMPATIBLE);
    assert_non_null(
        strstr(err_message(err), "disk 'system' has 2 queues in the state and 1 in the config"));
    err_free(err);
    assert_fails(device_host_fake_move(one.blk, two.blk), ERR_INCOMPATIBLE);

    bench_finish(&one);
    bench_finish(&two);
    guest_memory_destroy(memory);
}

TEST(an_image_of_another_size_is_refused_after_a_restore)
{
    struct guest_memory *memory = NULL;
    struct bench source;
    struct bench target;
    struct block *smaller = NULL;
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &memory));
    bench_init(&source, memory, false);
    bench_init(&target, memory, false);
    ASSERT_OK(block_memory_create(DISK_BYTES / 2, &smaller));
    ASSERT_OK(virtio_blk_attach(source.blk, source.disk));

    ASSERT_OK(device_host_fake_move(source.blk, target.blk));

    assert_fails(virtio_blk_attach(target.blk, smaller), ERR_INCOMPATIBLE);
    ASSERT_OK(virtio_blk_attach(target.blk, target.disk));
    ASSERT_OK(virtio_blk_attach(target.blk, NULL));
    ASSERT_OK(block_close(smaller));
    bench_finish(&source);
    bench_finish(&target);
    guest_memory_destroy(memory);
}

TEST(states_of_other_disks_are_refused)
{
    struct guest_memory *memory = NULL;
    struct bench writable;
    struct bench read_only;
    Ferry__VirtioBlkState state = FERRY__VIRTIO_BLK_STATE__INIT;
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &memory));
    bench_init(&writable, memory, false);
    bench_init(&read_only, memory, true);

    assert_fails(device_host_fake_move(writable.blk, read_only.blk), ERR_INCOMPATIBLE);
    assert_fails(writable.blk->ops->validate(writable.blk, 1, &state.base), ERR_INVALID);
    state.capacity_sectors = UINT64_MAX;
    assert_fails(writable.blk->ops->validate(writable.blk, 1, &state.base), ERR_INVALID);

    bench_finish(&writable);
    bench_finish(&read_only);
    guest_memory_destroy(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_waits_is_done_once_by_the_target),
        cmocka_unit_test(every_queue_goes_on_where_it_was),
        cmocka_unit_test(a_state_with_another_number_of_queues_is_refused),
        cmocka_unit_test(an_image_of_another_size_is_refused_after_a_restore),
        cmocka_unit_test(states_of_other_disks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
