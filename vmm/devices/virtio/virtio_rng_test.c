/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_rng_test.c - random bytes through a whole transport. */
#include <string.h>

#include "base/event_loop.h"
#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/devices/virtio/virtio_driver_fake.h"
#include "vmm/devices/virtio/virtio_rng.h"

#define RAM_BYTES (4 * MIB)
#define DATA_AT   0x100000u

struct bench {
    struct device_host_fake fake;
    struct guest_memory *memory;
    struct pci_bus *bus;
    struct device *rng;
    struct virtio_driver_fake driver;
    struct virtqueue_driver_fake rings;
};

static void bench_init(struct bench *bench)
{
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &bench->memory));
    device_host_fake_init(&bench->fake, bench->memory);
    ASSERT_OK(pci_bus_create(&bench->fake.host, &bench->bus));
    ASSERT_OK(virtio_rng_create(&bench->fake.host, bench->bus, 0, &bench->rng));
    ASSERT_OK(bench->rng->ops->start(bench->rng));
}

static void bench_drive(struct bench *bench)
{
    virtio_driver_fake_init(&bench->driver, &bench->fake, 1);
    virtqueue_driver_fake_init(&bench->rings, bench->memory, gpa(0x10000), 8);
    assert_true(virtio_driver_fake_negotiate(&bench->driver, (uint64_t)1 << 32));
    virtio_driver_fake_set_queue(&bench->driver, 0, &bench->rings);
    virtio_driver_fake_ready(&bench->driver);
}

static void bench_finish(struct bench *bench)
{
    bench->rng->ops->destroy(bench->rng);
    struct device *bus = pci_bus_device(bench->bus);
    bus->ops->destroy(bus);
    device_host_fake_finish(&bench->fake);
    guest_memory_destroy(bench->memory);
}

static void turn(struct bench *bench)
{
    for (int i = 0; i < 3; i++)
        ASSERT_OK(event_loop_turn(bench->fake.host.loop, 0));
}

static const struct driver_buffer buffer = {{DATA_AT}, 64, VIRTQUEUE_WRITABLE};

TEST(a_request_is_filled_and_interrupts)
{
    struct bench bench;
    uint32_t head = 0;
    uint32_t written = 0;
    uint8_t bytes[64] = {0};
    const uint8_t zeros[64] = {0};
    bench_init(&bench);
    bench_drive(&bench);

    (void)virtqueue_driver_fake_add(&bench.rings, &buffer, 1);
    virtio_driver_fake_notify(&bench.driver, 0);
    turn(&bench);

    assert_true(virtqueue_driver_fake_used(&bench.rings, &head, &written));
    assert_int_equal(written, 64);
    assert_true(guest_read(bench.memory, gpa(DATA_AT), bytes, sizeof(bytes)));
    assert_memory_not_equal(bytes, zeros, sizeof(bytes));
    assert_int_equal(virtio_driver_fake_interrupts(&bench.driver, 0), 1);
    bench_finish(&bench);
}

TEST(nothing_moves_while_the_machine_stands_still)
{
    struct bench bench;
    uint32_t head = 0;
    uint32_t written = 0;
    bench_init(&bench);
    bench_drive(&bench);
    turn(&bench);

    bench.rng->ops->stop(bench.rng);
    (void)virtqueue_driver_fake_add(&bench.rings, &buffer, 1);
    virtio_driver_fake_notify(&bench.driver, 0);
    turn(&bench);
    assert_false(virtqueue_driver_fake_used(&bench.rings, &head, &written));
    ASSERT_OK(bench.rng->ops->start(bench.rng));
    turn(&bench);

    assert_true(virtqueue_driver_fake_used(&bench.rings, &head, &written));
    bench_finish(&bench);
}

TEST(a_request_that_waits_is_served_by_the_restored_device)
{
    struct bench source;
    uint32_t head = 0;
    uint32_t written = 0;
    bench_init(&source);
    bench_drive(&source);
    turn(&source);
    source.rng->ops->stop(source.rng);
    (void)virtqueue_driver_fake_add(&source.rings, &buffer, 1);

    struct device_host_fake fake;
    struct pci_bus *bus = NULL;
    struct device *target = NULL;
    device_host_fake_init(&fake, source.memory);
    ASSERT_OK(pci_bus_create(&fake.host, &bus));
    ASSERT_OK(virtio_rng_create(&fake.host, bus, 0, &target));
    ASSERT_OK(device_host_fake_move(source.rng, target));
    ASSERT_OK(target->ops->start(target));
    for (int i = 0; i < 3; i++)
        ASSERT_OK(event_loop_turn(fake.host.loop, 0));

    assert_true(virtqueue_driver_fake_used(&source.rings, &head, &written));
    assert_false(virtqueue_driver_fake_used(&source.rings, &head, &written));
    assert_true(interrupts_fake_fired(fake.interrupts, 0x41) >= 1);
    target->ops->destroy(target);
    pci_bus_device(bus)->ops->destroy(pci_bus_device(bus));
    device_host_fake_finish(&fake);
    bench_finish(&source);
}

TEST(a_broken_queue_asks_for_a_reset)
{
    struct bench bench;
    const struct driver_buffer bad = {{RAM_BYTES}, 64, VIRTQUEUE_WRITABLE};
    bench_init(&bench);
    bench_drive(&bench);

    (void)virtqueue_driver_fake_add(&bench.rings, &bad, 1);
    virtio_driver_fake_notify(&bench.driver, 0);
    turn(&bench);
    assert_int_equal(virtio_driver_fake_status(&bench.driver), 0x4f);
    assert_int_equal(virtio_driver_fake_config_interrupts(&bench.driver), 1);
    bench_drive(&bench);

    assert_int_equal(virtio_driver_fake_status(&bench.driver), 0x0f);
    bench_finish(&bench);
}

TEST(a_state_without_transport_is_refused)
{
    struct bench bench;
    Ferry__VirtioRngState state = FERRY__VIRTIO_RNG_STATE__INIT;
    bench_init(&bench);

    assert_fails(bench.rng->ops->validate(bench.rng, 1, &state.base), ERR_INVALID);

    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_filled_and_interrupts),
        cmocka_unit_test(nothing_moves_while_the_machine_stands_still),
        cmocka_unit_test(a_request_that_waits_is_served_by_the_restored_device),
        cmocka_unit_test(a_broken_queue_asks_for_a_reset),
        cmocka_unit_test(a_state_without_transport_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
