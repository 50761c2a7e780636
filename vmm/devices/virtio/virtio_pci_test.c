/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_pci_test.c - negotiation, queues, notifications and state of the transport. */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/unit_test.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/virtio/virtio_driver_fake.h"
#include "vmm/devices/virtio/virtio_pci.h"

#define RAM_BYTES (4 * MIB)
#define VERSION_1 ((uint64_t)1 << 32)
#define FEATURE_5 ((uint64_t)1 << 5)

struct probe {
    struct virtio_pci pci;
    unsigned runs;
    unsigned halts;
};

struct bench {
    struct device_host_fake fake;
    struct guest_memory *memory;
    struct pci_bus *bus;
    struct probe probe;
    struct virtio_driver_fake driver;
    struct virtqueue_driver_fake rings;
};

static struct probe *probe_of(struct virtio_pci *pci)
{
    return CONTAINER_OF(pci, struct probe, pci);
}

static void config_read(struct virtio_pci *pci, uint8_t *out_config)
{
    (void)pci;
    memcpy(out_config, "config", 6);
}

static void run(struct virtio_pci *pci)
{
    probe_of(pci)->runs++;
}

static void halt(struct virtio_pci *pci)
{
    probe_of(pci)->halts++;
}

static const struct virtio_model model = {
    .function_ops = VIRTIO_FUNCTION_OPS("probe"),
    .device_id = 2,
    .class_code = 0x018000,
    .queue_count = 2,
    .queue_size = 64,
    .config_bytes = 6,
    .config_read = config_read,
    .run = run,
    .halt = halt,
};

static const struct device_ops no_ops = {.section = "probe"};

static void bench_init(struct bench *bench)
{
    memset(bench, 0, sizeof(*bench));
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &bench->memory));
    device_host_fake_init(&bench->fake, bench->memory);
    ASSERT_OK(pci_bus_create(&bench->fake.host, &bench->bus));
    ASSERT_OK(virtio_pci_init(&bench->probe.pci, &no_ops, &bench->fake.host, bench->bus, &model,
                              FEATURE_5));
    ASSERT_OK(virtio_pci_start(&bench->probe.pci.base));
    virtio_driver_fake_init(&bench->driver, &bench->fake, 1);
    virtqueue_driver_fake_init(&bench->rings, bench->memory, gpa(0x10000), 8);
}

static void bench_finish(struct bench *bench)
{
    virtio_pci_finish(&bench->probe.pci);
    assert_int_equal(interrupts_fake_notify_count(bench->fake.interrupts), 0);
    struct device *bus = pci_bus_device(bench->bus);
    bus->ops->destroy(bus);
    device_host_fake_finish(&bench->fake);
    guest_memory_destroy(bench->memory);
}

static void bench_drive(struct bench *bench)
{
    assert_true(virtio_driver_fake_negotiate(&bench->driver, VERSION_1 | FEATURE_5));
    virtio_driver_fake_set_queue(&bench->driver, 0, &bench->rings);
    virtio_driver_fake_ready(&bench->driver);
}

TEST(features_are_offered_and_negotiated)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(virtio_driver_fake_features(&bench.driver),
                     VERSION_1 | FEATURE_5 | 1u << 28 | 1u << 29);
    assert_true(virtio_driver_fake_negotiate(&bench.driver, VERSION_1 | 1u << 29));

    assert_true(virtio_pci_has_feature(&bench.probe.pci, 29));
    assert_true(bench.probe.pci.queues[1].queue.has_event_index);
    assert_false(bench.probe.pci.queues[1].queue.has_indirect);
    bench_finish(&bench);
}

TEST(features_that_were_not_offered_and_legacy_drivers_are_refused)
{
    struct bench bench;
    bench_init(&bench);

    assert_false(virtio_driver_fake_negotiate(&bench.driver, VERSION_1 | 1u << 6));
    virtio_driver_fake_ready(&bench.driver);
    assert_false(virtio_driver_fake_negotiate(&bench.driver, FEATURE_5));

    assert_int_equal(bench.probe.runs, 0);
    bench_finish(&bench);
}

TEST(the_device_runs_from_driver_ok_to_reset)
{
    struct bench bench;
    bench_init(&bench);

    bench_drive(&bench);
    assert_int_equal(virtio_driver_fake_status(&bench.driver), 0x0f);
    assert_int_equal(bench.probe.runs, 1);
    virtio_driver_fake_write(&bench.driver, 20, 0, 1);

    assert_int_equal(bench.probe.halts, 1);
    assert_int_equal(virtio_driver_fake_status(&bench.driver), 0);
    assert_false(bench.probe.pci.queues[0].queue.is_enabled);
    bench_finish(&bench);
}

TEST(stop_and_start_halt_and_run_a_ready_device_only)
{
    struct bench bench;
    bench_init(&bench);
    virtio_pci_stop(&bench.probe.pci.base);
    ASSERT_OK(virtio_pci_start(&bench.probe.pci.base));
    assert_int_equal(bench.probe.runs + bench.probe.halts, 0);

    bench_drive(&bench);
    virtio_pci_stop(&bench.probe.pci.base);
    ASSERT_OK(virtio_pci_start(&bench.probe.pci.base));

    assert_int_equal(bench.probe.runs, 2);
    assert_int_equal(bench.probe.halts, 1);
    bench_finish(&bench);
}

TEST(notifications_follow_the_bar)
{
    struct bench bench;
    bench_init(&bench);
    assert_int_equal(interrupts_fake_notify_count(bench.fake.interrupts), 0);
    bench_drive(&bench);
    assert_int_equal(interrupts_fake_notify_count(bench.fake.interrupts), 2);

    device_host_fake_out(&bench.fake, PORT_PCI_ADDRESS, 0x80000810, 4);
    device_host_fake_out(&bench.fake, PORT_PCI_DATA, 0xd0000000, 4);

    assert_int_equal(interrupts_fake_notify_fd(bench.fake.interrupts, 0xd0003004),
                     bench.probe.pci.queues[1].notify_fd);
    assert_int_equal(interrupts_fake_notify_count(bench.fake.interrupts), 2);
    bench_finish(&bench);
}

TEST(a_queue_outside_ram_asks_for_a_reset)
{
    struct bench bench;
    bench_init(&bench);
    assert_true(virtio_driver_fake_negotiate(&bench.driver, VERSION_1));
    bench.rings.used = gpa(RAM_BYTES);

    virtio_driver_fake_set_queue(&bench.driver, 0, &bench.rings);

    assert_int_equal(virtio_driver_fake_status(&bench.driver), 0x4b);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, 28, 2), 0);
    bench_finish(&bench);
}

TEST(queue_registers_are_bounded)
{
    struct bench bench;
    bench_init(&bench);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, 18, 2), 2);

    virtio_driver_fake_write(&bench.driver, 24, 3, 2);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, 24, 2), 64);
    virtio_driver_fake_write(&bench.driver, 24, 128, 2);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, 24, 2), 64);
    virtio_driver_fake_write(&bench.driver, 26, 3, 2);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, 26, 2), 0xffff);
    virtio_driver_fake_write(&bench.driver, 22, 2, 2);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, 24, 2), 0);
    virtio_driver_fake_write(&bench.driver, 28, 1, 2);

    bench_finish(&bench);
}

TEST(the_isr_clears_when_read_and_configuration_is_bounded)
{
    struct bench bench;
    bench_init(&bench);
    bench_drive(&bench);

    virtio_pci_interrupt(&bench.probe.pci, 0);
    virtio_pci_config_changed(&bench.probe.pci);

    assert_int_equal(virtio_driver_fake_read(&bench.driver, 0x1000, 1), 3);
    assert_int_equal(virtio_driver_fake_read(&bench.driver, 0x1000, 1), 0);
    assert_int_equal(virtio_driver_fake_interrupts(&bench.driver, 0), 1);
    assert_int_equal(virtio_driver_fake_config_interrupts(&bench.driver), 1);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 0, 4), 0x666e6f63);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 6, 2), 0);
    assert_int_equal(virtio_driver_fake_config(&bench.driver, 0xffc, 8), 0);
    bench_finish(&bench);
}

TEST(the_configuration_window_reaches_the_bar)
{
    struct bench bench;
    bench_init(&bench);
    unsigned window = 0x80000800u | bench.probe.pci.window_at;

    device_host_fake_out(&bench.fake, PORT_PCI_ADDRESS, window + 8, 4);
    device_host_fake_out(&bench.fake, PORT_PCI_DATA, 0x2000, 4);
    device_host_fake_out(&bench.fake, PORT_PCI_ADDRESS, window + 12, 4);
    device_host_fake_out(&bench.fake, PORT_PCI_DATA, 4, 4);
    device_host_fake_out(&bench.fake, PORT_PCI_ADDRESS, window + 16, 4);

    assert_int_equal(device_host_fake_in(&bench.fake, PORT_PCI_DATA, 4), 0x666e6f63);
    bench_finish(&bench);
}

static struct err *check(struct bench *bench, void (*spoil)(Ferry__VirtioPciState *state))
{
    Ferry__VirtioPciState *state = NULL;
    ASSERT_OK(virtio_pci_save(&bench->probe.pci, &state));
    spoil(state);
    struct err *err = virtio_pci_validate(&bench->probe.pci, state);
    ferry__virtio_pci_state__free_unpacked(state, NULL);
    return err;
}

static void spoil_nothing(Ferry__VirtioPciState *state)
{
    (void)state;
}

static void spoil_features(Ferry__VirtioPciState *state)
{
    state->driver_features |= 1u << 6;
}

static void spoil_status(Ferry__VirtioPciState *state)
{
    state->status = 0x100;
}

static void spoil_ready(Ferry__VirtioPciState *state)
{
    state->status = 0x7;
}

static void spoil_vector(Ferry__VirtioPciState *state)
{
    state->queues[1]->msix_vector = 3;
}

static void spoil_queue(Ferry__VirtioPciState *state)
{
    state->queues[0]->size = 0;
}

TEST(states_that_do_not_fit_are_refused)
{
    struct bench bench;
    bench_init(&bench);
    bench_drive(&bench);

    ASSERT_OK(check(&bench, spoil_nothing));
    assert_fails(check(&bench, spoil_features), ERR_INCOMPATIBLE);
    assert_fails(check(&bench, spoil_status), ERR_INVALID);
    assert_fails(check(&bench, spoil_ready), ERR_INVALID);
    assert_fails(check(&bench, spoil_vector), ERR_INVALID);
    assert_fails(check(&bench, spoil_queue), ERR_INVALID);

    bench_finish(&bench);
}

TEST(a_restored_transport_runs_where_the_driver_left_it)
{
    struct bench source;
    struct bench target;
    Ferry__VirtioPciState *state = NULL;
    bench_init(&source);
    bench_init(&target);
    bench_drive(&source);
    virtio_pci_stop(&source.probe.pci.base);
    virtio_pci_stop(&target.probe.pci.base);

    ASSERT_OK(virtio_pci_save(&source.probe.pci, &state));
    ASSERT_OK(virtio_pci_validate(&target.probe.pci, state));
    virtio_pci_apply(&target.probe.pci, state);
    assert_int_equal(target.probe.runs, 0);
    ASSERT_OK(virtio_pci_start(&target.probe.pci.base));

    assert_int_equal(target.probe.runs, 1);
    assert_int_equal(virtio_driver_fake_status(&target.driver), 0x0f);
    assert_int_equal(interrupts_fake_notify_count(target.fake.interrupts), 2);
    assert_int_equal(virtio_driver_fake_interrupts(&target.driver, 0), 1);
    ferry__virtio_pci_state__free_unpacked(state, NULL);
    bench_finish(&source);
    bench_finish(&target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_offered_and_negotiated),
        cmocka_unit_test(features_that_were_not_offered_and_legacy_drivers_are_refused),
        cmocka_unit_test(the_device_runs_from_driver_ok_to_reset),
        cmocka_unit_test(stop_and_start_halt_and_run_a_ready_device_only),
        cmocka_unit_test(notifications_follow_the_bar),
        cmocka_unit_test(a_queue_outside_ram_asks_for_a_reset),
        cmocka_unit_test(queue_registers_are_bounded),
        cmocka_unit_test(the_isr_clears_when_read_and_configuration_is_bounded),
        cmocka_unit_test(the_configuration_window_reaches_the_bar),
        cmocka_unit_test(states_that_do_not_fit_are_refused),
        cmocka_unit_test(a_restored_transport_runs_where_the_driver_left_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
