/* SPDX-License-Identifier: Apache-2.0 */
/* serial_16550_state_test.c - a console goes on after a restore, and hostile states are refused. */
#include <string.h>

#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/device_host_fake.h"
#include "vmm/devices/legacy/serial_16550.h"

struct bench {
    struct device_host_fake fake;
    struct device *serial;
};

static void on_output(void *context, uint8_t byte)
{
    (void)context;
    (void)byte;
}

static void on_room(void *context)
{
    (void)context;
}

static void bench_init(struct bench *bench)
{
    struct serial_line line = {.output = on_output, .input_room = on_room};

    device_host_fake_init(&bench->fake, NULL);
    ASSERT_OK(
        serial_16550_create(&bench->fake.host, 0, PORT_COM1, IRQ_COM1, &line, &bench->serial));
}

static void bench_finish(struct bench *bench)
{
    bench->serial->ops->destroy(bench->serial);
    device_host_fake_finish(&bench->fake);
}

TEST(registers_and_unread_input_survive)
{
    struct bench source;
    struct bench target;
    bench_init(&source);
    bench_init(&target);
    device_host_fake_out(&source.fake, PORT_COM1 + 7, 0x5a, 1);
    device_host_fake_out(&source.fake, PORT_COM1 + 4, 0x0b, 1);
    (void)serial_16550_input(source.serial, (const uint8_t *)"xab", 3);
    (void)device_host_fake_in(&source.fake, PORT_COM1, 1);

    ASSERT_OK(device_host_fake_move(source.serial, target.serial));

    assert_int_equal(device_host_fake_in(&target.fake, PORT_COM1 + 7, 1), 0x5a);
    assert_int_equal(device_host_fake_in(&target.fake, PORT_COM1 + 4, 1), 0x0b);
    assert_int_equal(device_host_fake_in(&target.fake, PORT_COM1, 1), 'a');
    assert_int_equal(device_host_fake_in(&target.fake, PORT_COM1, 1), 'b');
    assert_int_equal(device_host_fake_in(&target.fake, PORT_COM1 + 5, 1), 0x60);
    bench_finish(&source);
    bench_finish(&target);
}

TEST(a_transmitter_that_waits_for_its_interrupt_is_not_stuck)
{
    struct bench source;
    struct bench target;
    bench_init(&source);
    bench_init(&target);
    device_host_fake_out(&source.fake, PORT_COM1 + 4, 0x08, 1);
    device_host_fake_out(&source.fake, PORT_COM1 + 1, 0x02, 1);
    assert_int_equal(device_host_fake_in(&source.fake, PORT_COM1 + 2, 1), 0x02);

    ASSERT_OK(device_host_fake_move(source.serial, target.serial));
    ASSERT_OK(target.serial->ops->start(target.serial));

    assert_true(interrupts_fake_line(target.fake.interrupts, IRQ_COM1));
    assert_int_equal(device_host_fake_in(&target.fake, PORT_COM1 + 2, 1), 0x02);
    bench_finish(&source);
    bench_finish(&target);
}

TEST(values_that_no_port_has_are_refused)
{
    struct bench bench;
    uint8_t flood[257] = {0};
    bench_init(&bench);
    Ferry__Serial16550State states[] = {
        FERRY__SERIAL16550_STATE__INIT, FERRY__SERIAL16550_STATE__INIT,
        FERRY__SERIAL16550_STATE__INIT, FERRY__SERIAL16550_STATE__INIT,
        FERRY__SERIAL16550_STATE__INIT, FERRY__SERIAL16550_STATE__INIT,
        FERRY__SERIAL16550_STATE__INIT,
    };
    states[0].divisor = 0x10000;
    states[1].interrupt_enable = 0x10;
    states[2].fifo_control = 0x02;
    states[3].line_control = 0x100;
    states[4].modem_control = 0x20;
    states[5].scratch = 0x100;
    states[6].received = (ProtobufCBinaryData){.data = flood, .len = sizeof(flood)};

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        assert_fails(bench.serial->ops->validate(bench.serial, 1, &states[i].base), ERR_INVALID);

    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_and_unread_input_survive),
        cmocka_unit_test(a_transmitter_that_waits_for_its_interrupt_is_not_stuck),
        cmocka_unit_test(values_that_no_port_has_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
