/* SPDX-License-Identifier: Apache-2.0 */
/* pci_bus_test.c - finding, sizing, enabling and moving functions as an operating system does. */
#include <string.h>

#include "base/unit_test.h"
#include "vmm/bus/io_bus.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/bus/pci_function.h"
#include "vmm/bus/pci_msix.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/device_host_fake.h"

#define BAR_BYTES 0x8000u

struct bench {
    struct device_host_fake fake;
    struct pci_bus *bus;
    struct pci_function function;
    struct pci_msix *msix;
    unsigned moves;
};

static void on_bar_read(struct pci_function *function, uint64_t offset, uint8_t *out_data,
                        size_t len)
{
    (void)function;
    memset(out_data, (int)offset, len);
}

static void on_bar_write(struct pci_function *function, uint64_t offset, const uint8_t *data,
                         size_t len)
{
    (void)function;
    (void)offset;
    (void)data;
    (void)len;
}

static void on_bar_moved(struct pci_function *function)
{
    struct bench *bench = (struct bench *)((char *)function - offsetof(struct bench, function));
    bench->moves++;
}

static void on_config_access(struct pci_function *function, uint8_t offset, size_t len)
{
    assert_true(offset + len <= sizeof(function->config));
}

static const struct pci_function_ops function_ops = {
    .name = "probe",
    .bar_read = on_bar_read,
    .bar_write = on_bar_write,
    .bar_moved = on_bar_moved,
    .before_config_read = on_config_access,
    .after_config_write = on_config_access,
};

static void bench_init(struct bench *bench)
{
    const struct pci_identity identity = {
        .vendor = 0x1af4, .device = 0x1042, .class_code = 0x018000};

    memset(bench, 0, sizeof(*bench));
    device_host_fake_init(&bench->fake, NULL);
    ASSERT_OK(pci_bus_create(&bench->fake.host, &bench->bus));
    ASSERT_OK(pci_msix_create(bench->fake.host.interrupts, 2, &bench->msix));
    pci_function_init(&bench->function, &function_ops, &identity, bench->fake.host.mmio);
    (void)pci_function_add_capability(&bench->function, 0x09, "\x04\x01", 4);
    pci_function_add_msix(&bench->function, bench->msix, 0x4000, 0x5000);
    ASSERT_OK(pci_bus_add(bench->bus, &bench->function, BAR_BYTES));
}

static void bench_finish(struct bench *bench)
{
    pci_function_finish(&bench->function);
    pci_msix_destroy(bench->msix);
    struct device *device = pci_bus_device(bench->bus);
    device->ops->destroy(device);
    device_host_fake_finish(&bench->fake);
}

static uint32_t config_in(struct bench *bench, unsigned slot, unsigned offset, size_t len)
{
    device_host_fake_out(&bench->fake, PORT_PCI_ADDRESS, 0x80000000u | slot << 11 | (offset & ~3u),
                         4);
    return device_host_fake_in(&bench->fake, (uint16_t)(PORT_PCI_DATA + offset % 4), len);
}

static void config_out(struct bench *bench, unsigned slot, unsigned offset, uint32_t value,
                       size_t len)
{
    device_host_fake_out(&bench->fake, PORT_PCI_ADDRESS, 0x80000000u | slot << 11 | (offset & ~3u),
                         4);
    device_host_fake_out(&bench->fake, (uint16_t)(PORT_PCI_DATA + offset % 4), value, len);
}

static uint8_t mmio_in(struct bench *bench, uint64_t address)
{
    uint8_t byte = 0;
    io_bus_read(bench->fake.host.mmio, address, &byte, 1);
    return byte;
}

TEST(bus_scan_finds_the_bridge_and_the_function)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(config_in(&bench, 0, 0x08, 4) >> 8, 0x060000);
    assert_int_equal(config_in(&bench, 1, 0x00, 4), 0x10421af4);
    assert_int_equal(config_in(&bench, 1, 0x0a, 2), 0x0180);
    assert_int_equal(config_in(&bench, 2, 0x00, 4), 0xffffffff);
    device_host_fake_out(&bench.fake, PORT_PCI_ADDRESS, 0x80010800, 4);
    assert_int_equal(device_host_fake_in(&bench.fake, PORT_PCI_DATA, 4), 0xffffffff);
    bench_finish(&bench);
}

TEST(capabilities_are_a_list)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(config_in(&bench, 1, 0x06, 2) & 0x10, 0x10);
    unsigned first = config_in(&bench, 1, 0x34, 1);
    assert_int_equal(config_in(&bench, 1, first, 1), 0x09);
    unsigned second = config_in(&bench, 1, first + 1, 1);
    assert_int_equal(config_in(&bench, 1, second, 1), 0x11);
    assert_int_equal(config_in(&bench, 1, second + 2, 2), 1);
    assert_int_equal(config_in(&bench, 1, second + 4, 4), 0x4000);
    assert_int_equal(config_in(&bench, 1, second + 1, 1), 0);
    bench_finish(&bench);
}

TEST(a_bar_is_sized_placed_and_enabled)
{
    struct bench bench;
    bench_init(&bench);
    uint32_t placed = config_in(&bench, 1, 0x10, 4);
    assert_int_equal(placed, ADDRESS_PCI_WINDOW);
    assert_int_equal(mmio_in(&bench, placed + 5), 0xff);

    config_out(&bench, 1, 0x10, 0xffffffff, 4);
    assert_int_equal(config_in(&bench, 1, 0x10, 4), ~(BAR_BYTES - 1));
    config_out(&bench, 1, 0x10, placed, 4);
    config_out(&bench, 1, 0x04, 0x0406, 2);

    assert_int_equal(mmio_in(&bench, placed + 5), 5);
    bench_finish(&bench);
}

TEST(a_moved_bar_answers_at_the_new_place_only)
{
    struct bench bench;
    bench_init(&bench);
    config_out(&bench, 1, 0x04, 2, 2);

    config_out(&bench, 1, 0x10, 0xd0000000, 4);

    assert_int_equal(bench.function.bar_address, 0xd0000000);
    assert_int_equal(bench.moves, 2);
    assert_int_equal(mmio_in(&bench, ADDRESS_PCI_WINDOW + 5), 0xff);
    assert_int_equal(mmio_in(&bench, 0xd0000005), 5);
    bench_finish(&bench);
}

TEST(a_bar_over_ram_or_the_interrupt_chips_answers_nowhere)
{
    struct bench bench;
    bench_init(&bench);
    config_out(&bench, 1, 0x04, 2, 2);

    config_out(&bench, 1, 0x10, 0x00100000, 4);
    assert_int_equal(bench.function.bar_address, 0);
    config_out(&bench, 1, 0x10, 0xfee00000, 4);

    assert_int_equal(bench.function.bar_address, 0);
    bench_finish(&bench);
}

TEST(read_only_registers_stay)
{
    struct bench bench;
    bench_init(&bench);

    config_out(&bench, 1, 0x00, 0, 4);
    config_out(&bench, 1, 0x34, 0, 1);
    config_out(&bench, 1, 0x04, 0xffff, 2);

    assert_int_equal(config_in(&bench, 1, 0x00, 4), 0x10421af4);
    assert_int_equal(config_in(&bench, 1, 0x34, 1), 0x40);
    assert_int_equal(config_in(&bench, 1, 0x04, 2), 0x0546);
    bench_finish(&bench);
}

TEST(the_reset_control_register_resets)
{
    struct bench bench;
    bench_init(&bench);

    device_host_fake_out(&bench.fake, PORT_PCI_ADDRESS + 1, 0x02, 1);
    assert_int_equal(bench.fake.reset_requests, 0);
    device_host_fake_out(&bench.fake, PORT_PCI_ADDRESS + 1, 0x06, 1);

    assert_int_equal(bench.fake.reset_requests, 1);
    bench_finish(&bench);
}

TEST(a_function_moves_to_another_machine)
{
    struct bench source;
    struct bench target;
    Ferry__PciFunctionState *state = NULL;
    bench_init(&source);
    bench_init(&target);
    config_out(&source, 1, 0x10, 0xd0000000, 4);
    config_out(&source, 1, 0x04, 6, 2);
    config_out(&source, 1, 0x3c, 0x0b, 1);
    config_out(&source, 1, 0x46, 0x8000, 2);

    ASSERT_OK(device_host_fake_move(pci_bus_device(source.bus), pci_bus_device(target.bus)));
    ASSERT_OK(pci_function_save(&source.function, &state));
    ASSERT_OK(pci_function_validate(&target.function, state));
    pci_function_apply(&target.function, state);

    assert_int_equal(target.function.bar_address, 0xd0000000);
    assert_int_equal(device_host_fake_in(&target.fake, PORT_PCI_ADDRESS, 4), 0x80000844);
    assert_memory_equal(source.function.config, target.function.config, PCI_CONFIG_BYTES);
    ferry__pci_function_state__free_unpacked(state, NULL);
    bench_finish(&source);
    bench_finish(&target);
}

TEST(states_of_other_functions_are_refused)
{
    struct bench bench;
    Ferry__PciMsixState msix = FERRY__PCI_MSIX_STATE__INIT;
    Ferry__PciFunctionState state = FERRY__PCI_FUNCTION_STATE__INIT;
    bench_init(&bench);

    assert_fails(pci_function_validate(&bench.function, NULL), ERR_INVALID);
    assert_fails(pci_function_validate(&bench.function, &state), ERR_INCOMPATIBLE);
    state.slot = 1;
    assert_fails(pci_function_validate(&bench.function, &state), ERR_INVALID);
    state.msix = &msix;
    assert_fails(pci_function_validate(&bench.function, &state), ERR_INVALID);
    state.bar = 0xd0000010;
    assert_fails(pci_function_validate(&bench.function, &state), ERR_INVALID);

    bench_finish(&bench);
}

TEST(reset_places_the_bar_as_at_power_on)
{
    struct bench bench;
    bench_init(&bench);
    config_out(&bench, 1, 0x10, 0xd0000000, 4);
    config_out(&bench, 1, 0x04, 6, 2);

    pci_function_reset(&bench.function);

    assert_int_equal(bench.function.bar_address, 0);
    assert_int_equal(config_in(&bench, 1, 0x10, 4), ADDRESS_PCI_WINDOW);
    assert_int_equal(config_in(&bench, 1, 0x04, 2), 0);
    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bus_scan_finds_the_bridge_and_the_function),
        cmocka_unit_test(capabilities_are_a_list),
        cmocka_unit_test(a_bar_is_sized_placed_and_enabled),
        cmocka_unit_test(a_moved_bar_answers_at_the_new_place_only),
        cmocka_unit_test(a_bar_over_ram_or_the_interrupt_chips_answers_nowhere),
        cmocka_unit_test(read_only_registers_stay),
        cmocka_unit_test(the_reset_control_register_resets),
        cmocka_unit_test(a_function_moves_to_another_machine),
        cmocka_unit_test(states_of_other_functions_are_refused),
        cmocka_unit_test(reset_places_the_bar_as_at_power_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
