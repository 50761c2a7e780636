/* SPDX-License-Identifier: Apache-2.0 */
/* serial_16550_test.c - the registers as drivers use them. */
#include <string.h>

#include "base/unit_test.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/device_host_fake.h"
#include "vmm/devices/legacy/serial_16550.h"

#define DATA      (PORT_COM1 + 0)
#define INTERRUPT (PORT_COM1 + 1)
#define IDENTIFY  (PORT_COM1 + 2)
#define LINE      (PORT_COM1 + 3)
#define MODEM     (PORT_COM1 + 4)
#define STATUS    (PORT_COM1 + 5)
#define MODEM_IN  (PORT_COM1 + 6)
#define SCRATCH   (PORT_COM1 + 7)

struct bench {
    struct device_host_fake fake;
    struct device *serial;
    uint8_t output[64];
    size_t output_len;
    unsigned room_calls;
};

static void on_output(void *context, uint8_t byte)
{
    struct bench *bench = context;

    assert_true(bench->output_len < sizeof(bench->output));
    bench->output[bench->output_len++] = byte;
}

static void on_room(void *context)
{
    struct bench *bench = context;
    bench->room_calls++;
}

static void bench_init(struct bench *bench)
{
    struct serial_line line = {.output = on_output, .input_room = on_room, .context = bench};

    memset(bench, 0, sizeof(*bench));
    device_host_fake_init(&bench->fake, NULL);
    ASSERT_OK(
        serial_16550_create(&bench->fake.host, 0, PORT_COM1, IRQ_COM1, &line, &bench->serial));
}

static void bench_finish(struct bench *bench)
{
    bench->serial->ops->destroy(bench->serial);
    device_host_fake_finish(&bench->fake);
}

static uint8_t in(struct bench *bench, uint16_t port)
{
    return (uint8_t)device_host_fake_in(&bench->fake, port, 1);
}

static void out(struct bench *bench, uint16_t port, uint8_t value)
{
    device_host_fake_out(&bench->fake, port, value, 1);
}

static bool is_interrupting(struct bench *bench)
{
    return interrupts_fake_line(bench->fake.interrupts, IRQ_COM1);
}

TEST(what_the_guest_writes_comes_out_at_once)
{
    struct bench bench;
    bench_init(&bench);

    out(&bench, DATA, 'o');
    out(&bench, DATA, 'k');

    assert_int_equal(bench.output_len, 2);
    assert_memory_equal(bench.output, "ok", 2);
    assert_int_equal(in(&bench, STATUS), 0x60);
    bench_finish(&bench);
}

TEST(the_divisor_is_behind_the_latch_bit)
{
    struct bench bench;
    bench_init(&bench);

    out(&bench, LINE, 0x83);
    out(&bench, DATA, 0x01);
    out(&bench, INTERRUPT, 0x02);

    assert_int_equal(in(&bench, DATA), 0x01);
    assert_int_equal(in(&bench, INTERRUPT), 0x02);
    out(&bench, LINE, 0x03);
    assert_int_equal(in(&bench, INTERRUPT), 0x00);
    assert_int_equal(bench.output_len, 0);
    bench_finish(&bench);
}

TEST(loopback_shows_the_control_outputs_as_a_driver_expects)
{
    struct bench bench;
    bench_init(&bench);

    out(&bench, MODEM, 0x1a);
    assert_int_equal(in(&bench, MODEM_IN) & 0xf0, 0x90);

    out(&bench, DATA, 'x');
    assert_int_equal(in(&bench, DATA), 'x');
    assert_int_equal(bench.output_len, 0);
    bench_finish(&bench);
}

TEST(the_fifo_bits_show_a_16550a)
{
    struct bench bench;
    bench_init(&bench);
    assert_int_equal(in(&bench, IDENTIFY), 0x01);

    out(&bench, IDENTIFY, 0x01);

    assert_int_equal(in(&bench, IDENTIFY), 0xc1);
    bench_finish(&bench);
}

TEST(the_transmit_interrupt_comes_when_enabled_and_after_each_byte)
{
    struct bench bench;
    bench_init(&bench);
    out(&bench, MODEM, 0x08);
    assert_false(is_interrupting(&bench));

    out(&bench, INTERRUPT, 0x02);
    assert_true(is_interrupting(&bench));
    assert_int_equal(in(&bench, IDENTIFY), 0x02);
    assert_false(is_interrupting(&bench));

    out(&bench, DATA, 'a');
    assert_true(is_interrupting(&bench));
    bench_finish(&bench);
}

TEST(the_line_is_gated_by_out2)
{
    struct bench bench;
    bench_init(&bench);

    out(&bench, INTERRUPT, 0x02);
    assert_false(is_interrupting(&bench));
    out(&bench, MODEM, 0x08);

    assert_true(is_interrupting(&bench));
    bench_finish(&bench);
}

TEST(input_interrupts_until_it_is_read)
{
    struct bench bench;
    bench_init(&bench);
    out(&bench, MODEM, 0x08);
    out(&bench, INTERRUPT, 0x01);

    assert_int_equal(serial_16550_input(bench.serial, (const uint8_t *)"ab", 2), 2);
    assert_true(is_interrupting(&bench));
    assert_int_equal(in(&bench, IDENTIFY), 0x04);
    assert_int_equal(in(&bench, STATUS), 0x61);
    assert_int_equal(in(&bench, DATA), 'a');
    assert_int_equal(in(&bench, DATA), 'b');

    assert_false(is_interrupting(&bench));
    assert_int_equal(in(&bench, STATUS), 0x60);
    bench_finish(&bench);
}

TEST(input_that_does_not_fit_stays_outside_until_there_is_room)
{
    struct bench bench;
    uint8_t flood[1000];
    memset(flood, 'f', sizeof(flood));
    bench_init(&bench);

    size_t taken = serial_16550_input(bench.serial, flood, sizeof(flood));
    assert_in_range(taken, 16, sizeof(flood) - 1);
    assert_int_equal(bench.room_calls, 0);
    for (size_t i = 0; i < taken; i++)
        assert_int_equal(in(&bench, DATA), 'f');

    assert_int_equal(bench.room_calls, 1);
    bench_finish(&bench);
}

TEST(reset_forgets_everything_but_the_wiring)
{
    struct bench bench;
    bench_init(&bench);
    out(&bench, MODEM, 0x08);
    out(&bench, INTERRUPT, 0x02);
    out(&bench, SCRATCH, 0x5a);

    bench.serial->ops->reset(bench.serial);

    assert_false(is_interrupting(&bench));
    assert_int_equal(in(&bench, SCRATCH), 0);
    assert_int_equal(in(&bench, INTERRUPT), 0);
    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_guest_writes_comes_out_at_once),
        cmocka_unit_test(the_divisor_is_behind_the_latch_bit),
        cmocka_unit_test(loopback_shows_the_control_outputs_as_a_driver_expects),
        cmocka_unit_test(the_fifo_bits_show_a_16550a),
        cmocka_unit_test(the_transmit_interrupt_comes_when_enabled_and_after_each_byte),
        cmocka_unit_test(the_line_is_gated_by_out2),
        cmocka_unit_test(input_interrupts_until_it_is_read),
        cmocka_unit_test(input_that_does_not_fit_stays_outside_until_there_is_room),
        cmocka_unit_test(reset_forgets_everything_but_the_wiring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
