/* SPDX-License-Identifier: Apache-2.0 */
/* acpi_pm_test.c - the power button, soft-off, and their registers over a move. */
#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/device_host_fake.h"
#include "vmm/devices/legacy/acpi_pm.h"

#define STATUS PORT_ACPI_PM1_EVENT
#define ENABLE (PORT_ACPI_PM1_EVENT + 2)
#define BUTTON 0x100

struct bench {
    struct device_host_fake fake;
    struct device *pm;
};

static void bench_init(struct bench *bench)
{
    device_host_fake_init(&bench->fake, NULL);
    ASSERT_OK(acpi_pm_create(&bench->fake.host, &bench->pm));
}

static void bench_finish(struct bench *bench)
{
    bench->pm->ops->destroy(bench->pm);
    device_host_fake_finish(&bench->fake);
}

TEST(the_power_button_interrupts_until_its_status_is_cleared)
{
    struct bench bench;
    bench_init(&bench);
    device_host_fake_out(&bench.fake, ENABLE, BUTTON, 2);

    (void)acpi_pm_power_button(bench.pm);
    assert_true(interrupts_fake_line(bench.fake.interrupts, IRQ_ACPI_SCI));
    assert_int_equal(device_host_fake_in(&bench.fake, STATUS, 2), BUTTON);
    device_host_fake_out(&bench.fake, STATUS, BUTTON, 2);

    assert_false(interrupts_fake_line(bench.fake.interrupts, IRQ_ACPI_SCI));
    assert_int_equal(device_host_fake_in(&bench.fake, STATUS, 2), 0);
    bench_finish(&bench);
}

TEST(a_button_that_is_not_enabled_does_not_interrupt)
{
    struct bench bench;
    bench_init(&bench);

    (void)acpi_pm_power_button(bench.pm);

    assert_false(interrupts_fake_line(bench.fake.interrupts, IRQ_ACPI_SCI));
    bench_finish(&bench);
}

TEST(only_the_sleep_type_of_s5_switches_off)
{
    struct bench bench;
    bench_init(&bench);

    device_host_fake_out(&bench.fake, PORT_ACPI_PM1_CONTROL, 5u << 10, 2);
    device_host_fake_out(&bench.fake, PORT_ACPI_PM1_CONTROL, 1u << 10 | 1u << 13, 2);
    assert_int_equal(bench.fake.power_off_requests, 0);
    device_host_fake_out(&bench.fake, PORT_ACPI_PM1_CONTROL, 5u << 10 | 1u << 13, 2);

    assert_int_equal(bench.fake.power_off_requests, 1);
    bench_finish(&bench);
}

TEST(acpi_mode_is_always_on)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(device_host_fake_in(&bench.fake, PORT_ACPI_PM1_CONTROL, 2), 1);

    bench_finish(&bench);
}

TEST(a_pressed_button_moves_to_another_machine)
{
    struct bench source;
    struct bench target;
    bench_init(&source);
    bench_init(&target);
    device_host_fake_out(&source.fake, ENABLE, BUTTON, 2);
    (void)acpi_pm_power_button(source.pm);

    ASSERT_OK(device_host_fake_move(source.pm, target.pm));
    ASSERT_OK(target.pm->ops->start(target.pm));

    assert_true(interrupts_fake_line(target.fake.interrupts, IRQ_ACPI_SCI));
    bench_finish(&source);
    bench_finish(&target);
}

TEST(bits_that_do_not_exist_are_refused)
{
    struct bench bench;
    Ferry__AcpiPmState state = FERRY__ACPI_PM_STATE__INIT;
    bench_init(&bench);

    state.status = 0x8000;
    assert_fails(bench.pm->ops->validate(bench.pm, 1, &state.base), ERR_INVALID);
    state.status = 0;
    state.enable = 0x10000;
    assert_fails(bench.pm->ops->validate(bench.pm, 1, &state.base), ERR_INVALID);

    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_power_button_interrupts_until_its_status_is_cleared),
        cmocka_unit_test(a_button_that_is_not_enabled_does_not_interrupt),
        cmocka_unit_test(only_the_sleep_type_of_s5_switches_off),
        cmocka_unit_test(acpi_mode_is_always_on),
        cmocka_unit_test(a_pressed_button_moves_to_another_machine),
        cmocka_unit_test(bits_that_do_not_exist_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
