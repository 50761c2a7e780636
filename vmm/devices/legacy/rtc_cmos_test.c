/* SPDX-License-Identifier: Apache-2.0 */
/* rtc_cmos_test.c - the time as guests read and set it. */
#include "base/clock.h"
#include "base/unit_test.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/device_host_fake.h"
#include "vmm/devices/legacy/rtc_cmos.h"

/* 2026-11-23 14:05:09 UTC, a Monday */
#define SOME_TIME_NS ((uint64_t)1795442709 * NS_PER_S)

struct bench {
    struct device_host_fake fake;
    struct device *rtc;
};

static void bench_init(struct bench *bench)
{
    clock_fake_start(NS_PER_S, SOME_TIME_NS);
    device_host_fake_init(&bench->fake, NULL);
    ASSERT_OK(rtc_cmos_create(&bench->fake.host, &bench->rtc));
}

static void bench_finish(struct bench *bench)
{
    bench->rtc->ops->destroy(bench->rtc);
    device_host_fake_finish(&bench->fake);
    clock_fake_stop();
}

static uint8_t get(struct bench *bench, uint8_t index)
{
    device_host_fake_out(&bench->fake, PORT_RTC_INDEX, index, 1);
    return (uint8_t)device_host_fake_in(&bench->fake, PORT_RTC_DATA, 1);
}

static void set(struct bench *bench, uint8_t index, uint8_t value)
{
    device_host_fake_out(&bench->fake, PORT_RTC_INDEX, index, 1);
    device_host_fake_out(&bench->fake, PORT_RTC_DATA, value, 1);
}

TEST(the_time_is_the_hosts_in_bcd)
{
    struct bench bench;
    bench_init(&bench);

    assert_int_equal(get(&bench, 0x00), 0x09);
    assert_int_equal(get(&bench, 0x02), 0x05);
    assert_int_equal(get(&bench, 0x04), 0x14);
    assert_int_equal(get(&bench, 0x06), 0x02);
    assert_int_equal(get(&bench, 0x07), 0x23);
    assert_int_equal(get(&bench, 0x08), 0x11);
    assert_int_equal(get(&bench, 0x09), 0x26);
    assert_int_equal(get(&bench, 0x32), 0x20);
    assert_int_equal(get(&bench, 0x0d), 0x80);
    bench_finish(&bench);
}

TEST(binary_and_twelve_hour_formats_are_honoured)
{
    struct bench bench;
    bench_init(&bench);

    set(&bench, 0x0b, 0x04);

    assert_int_equal(get(&bench, 0x04), 0x80 | 2);
    assert_int_equal(get(&bench, 0x09), 26);
    bench_finish(&bench);
}

TEST(the_update_flags_follow_the_second)
{
    struct bench bench;
    bench_init(&bench);
    (void)get(&bench, 0x0c);
    assert_int_equal(get(&bench, 0x0a) & 0x80, 0);

    clock_fake_advance(NS_PER_S - 100 * NS_PER_US);
    assert_int_equal(get(&bench, 0x0a) & 0x80, 0x80);
    assert_int_equal(get(&bench, 0x0c), 0);
    clock_fake_advance(100 * NS_PER_US);

    assert_int_equal(get(&bench, 0x0a) & 0x80, 0);
    assert_int_equal(get(&bench, 0x0c), 0x10);
    assert_int_equal(get(&bench, 0x0c), 0);
    bench_finish(&bench);
}

TEST(a_time_that_the_guest_sets_goes_on_from_there)
{
    struct bench bench;
    bench_init(&bench);

    set(&bench, 0x0b, 0x82);
    set(&bench, 0x09, 0x30);
    set(&bench, 0x04, 0x01);
    set(&bench, 0x00, 0x58);
    clock_fake_advance((uint64_t)7 * NS_PER_S);
    assert_int_equal(get(&bench, 0x00), 0x58);
    set(&bench, 0x0b, 0x02);
    clock_fake_advance((uint64_t)3 * NS_PER_S);

    assert_int_equal(get(&bench, 0x00), 0x01);
    assert_int_equal(get(&bench, 0x02), 0x06);
    assert_int_equal(get(&bench, 0x04), 0x01);
    assert_int_equal(get(&bench, 0x09), 0x30);
    bench_finish(&bench);
}

TEST(time_passes_while_a_machine_is_saved)
{
    struct bench source;
    struct bench target;
    bench_init(&source);
    bench_init(&target);
    set(&source, 0x04, 0x20);
    set(&source, 0x40, 0xab);
    clock_fake_advance((uint64_t)60 * NS_PER_S);

    ASSERT_OK(device_host_fake_move(source.rtc, target.rtc));

    assert_int_equal(get(&target, 0x04), 0x20);
    assert_int_equal(get(&target, 0x02), 0x06);
    assert_int_equal(get(&target, 0x40), 0xab);
    bench_finish(&source);
    bench_finish(&target);
}

TEST(states_that_no_clock_has_are_refused)
{
    struct bench bench;
    uint8_t cmos[128] = {0};
    bench_init(&bench);
    Ferry__RtcCmosState state = FERRY__RTC_CMOS_STATE__INIT;

    assert_fails(bench.rtc->ops->validate(bench.rtc, 1, &state.base), ERR_INVALID);
    state.cmos = (ProtobufCBinaryData){.data = cmos, .len = sizeof(cmos)};
    ASSERT_OK(bench.rtc->ops->validate(bench.rtc, 1, &state.base));
    state.index = 128;
    assert_fails(bench.rtc->ops->validate(bench.rtc, 1, &state.base), ERR_INVALID);
    state.index = 0;
    state.offset_seconds = INT64_MAX;
    assert_fails(bench.rtc->ops->validate(bench.rtc, 1, &state.base), ERR_INVALID);

    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_time_is_the_hosts_in_bcd),
        cmocka_unit_test(binary_and_twelve_hour_formats_are_honoured),
        cmocka_unit_test(the_update_flags_follow_the_second),
        cmocka_unit_test(a_time_that_the_guest_sets_goes_on_from_there),
        cmocka_unit_test(time_passes_while_a_machine_is_saved),
        cmocka_unit_test(states_that_no_clock_has_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
