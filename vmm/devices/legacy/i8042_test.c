/* SPDX-License-Identifier: Apache-2.0 */
/* i8042_test.c - probing, resetting and moving the keyboard controller. */
#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/device_host_fake.h"
#include "vmm/devices/legacy/i8042.h"

struct bench {
    struct device_host_fake fake;
    struct device *i8042;
};

static void bench_init(struct bench *bench)
{
    device_host_fake_init(&bench->fake, NULL);
    ASSERT_OK(i8042_create(&bench->fake.host, &bench->i8042));
}

static void bench_finish(struct bench *bench)
{
    bench->i8042->ops->destroy(bench->i8042);
    device_host_fake_finish(&bench->fake);
}

TEST(the_reset_command_asks_for_a_reset)
{
    struct bench bench;
    bench_init(&bench);

    device_host_fake_out(&bench.fake, PORT_I8042_COMMAND, 0xfe, 1);

    assert_int_equal(bench.fake.reset_requests, 1);
    bench_finish(&bench);
}

TEST(the_reset_bit_of_the_output_port_does_too)
{
    struct bench bench;
    bench_init(&bench);

    device_host_fake_out(&bench.fake, PORT_I8042_COMMAND, 0xd1, 1);
    device_host_fake_out(&bench.fake, PORT_I8042_DATA, 0x03, 1);
    assert_int_equal(bench.fake.reset_requests, 0);
    device_host_fake_out(&bench.fake, PORT_I8042_COMMAND, 0xd1, 1);
    device_host_fake_out(&bench.fake, PORT_I8042_DATA, 0x02, 1);

    assert_int_equal(bench.fake.reset_requests, 1);
    bench_finish(&bench);
}

TEST(a_self_test_is_answered_at_once)
{
    struct bench bench;
    bench_init(&bench);
    assert_int_equal(device_host_fake_in(&bench.fake, PORT_I8042_COMMAND, 1) & 1, 0);

    device_host_fake_out(&bench.fake, PORT_I8042_COMMAND, 0xaa, 1);

    assert_int_equal(device_host_fake_in(&bench.fake, PORT_I8042_COMMAND, 1) & 1, 1);
    assert_int_equal(device_host_fake_in(&bench.fake, PORT_I8042_DATA, 1), 0x55);
    assert_int_equal(device_host_fake_in(&bench.fake, PORT_I8042_COMMAND, 1) & 1, 0);
    bench_finish(&bench);
}

TEST(a_mouse_port_is_found_missing_without_waiting)
{
    struct bench bench;
    bench_init(&bench);

    device_host_fake_out(&bench.fake, PORT_I8042_COMMAND, 0xd3, 1);
    device_host_fake_out(&bench.fake, PORT_I8042_DATA, 0x5a, 1);
    assert_int_equal(device_host_fake_in(&bench.fake, PORT_I8042_COMMAND, 1) & 0x21, 0x01);
    assert_int_equal(device_host_fake_in(&bench.fake, PORT_I8042_DATA, 1), 0x5a);
    device_host_fake_out(&bench.fake, PORT_I8042_COMMAND, 0xa9, 1);

    assert_int_equal(device_host_fake_in(&bench.fake, PORT_I8042_DATA, 1), 0x01);
    bench_finish(&bench);
}

TEST(state_moves_to_another_controller)
{
    struct bench source;
    struct bench target;
    bench_init(&source);
    bench_init(&target);
    device_host_fake_out(&source.fake, PORT_I8042_COMMAND, 0x60, 1);
    device_host_fake_out(&source.fake, PORT_I8042_DATA, 0x47, 1);
    device_host_fake_out(&source.fake, PORT_I8042_COMMAND, 0x20, 1);

    ASSERT_OK(device_host_fake_move(source.i8042, target.i8042));

    assert_int_equal(device_host_fake_in(&target.fake, PORT_I8042_DATA, 1), 0x47);
    bench_finish(&source);
    bench_finish(&target);
}

TEST(bytes_that_are_none_are_refused)
{
    struct bench bench;
    Ferry__I8042State state = FERRY__I8042_STATE__INIT;
    bench_init(&bench);

    state.output = 0x100;

    assert_fails(bench.i8042->ops->validate(bench.i8042, 1, &state.base), ERR_INVALID);
    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reset_command_asks_for_a_reset),
        cmocka_unit_test(the_reset_bit_of_the_output_port_does_too),
        cmocka_unit_test(a_self_test_is_answered_at_once),
        cmocka_unit_test(a_mouse_port_is_found_missing_without_waiting),
        cmocka_unit_test(state_moves_to_another_controller),
        cmocka_unit_test(bytes_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
