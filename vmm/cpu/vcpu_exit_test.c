/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/kvm.h>
#include <string.h>

#include "base/lock.h"
#include "base/unit_test.h"
#include "vmm/bus/io_bus.h"
#include "vmm/cpu/vcpu_exit.h"

struct fixture {
    struct lock lock;
    struct vcpu_buses buses;
    uint8_t written[8];
    size_t write_count;
    union {
        struct kvm_run run;
        uint8_t page[4096];
    } shared;
    char reason[VCPU_REASON_BYTES];
};

static void device_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    (void)context;
    memset(out_data, 0x40 + (int)offset, len);
}

static void device_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct fixture *fixture = context;

    assert_int_equal(offset, 2);
    assert_int_equal(len, 1);
    fixture->written[fixture->write_count++] = data[0];
}

static const struct io_range_ops device_ops = {
    .name = "test", .read = device_read, .write = device_write};

static int set_up(void **state)
{
    static struct fixture fixture;
    struct io_range *range;

    memset(&fixture, 0, sizeof(fixture));
    lock_init(&fixture.lock, LOCK_DEVICES);
    ASSERT_OK(io_bus_create(&fixture.buses.ports));
    ASSERT_OK(io_bus_create(&fixture.buses.mmio));
    ASSERT_OK(io_bus_add(fixture.buses.ports, 0x100, 8, &device_ops, &fixture, &range));
    ASSERT_OK(io_bus_add(fixture.buses.mmio, 0x1000, 8, &device_ops, &fixture, &range));
    fixture.buses.lock = &fixture.lock;
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    io_bus_destroy(fixture->buses.ports);
    io_bus_destroy(fixture->buses.mmio);
    lock_finish(&fixture->lock);
    return 0;
}

static enum vcpu_verdict handle(struct fixture *fixture)
{
    return vcpu_exit_handle(&fixture->buses, &fixture->shared.run, fixture->reason);
}

TEST(a_string_of_port_writes_reaches_the_device_byte_by_byte)
{
    struct fixture *fixture = *unused;
    struct kvm_run *run = &fixture->shared.run;

    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = KVM_EXIT_IO_OUT;
    run->io.port = 0x102;
    run->io.size = 1;
    run->io.count = 3;
    run->io.data_offset = 3072;
    memcpy(fixture->shared.page + 3072, "abc", 3);

    assert_int_equal(handle(fixture), VCPU_RUN_ON);
    assert_int_equal(fixture->write_count, 3);
    assert_memory_equal(fixture->written, "abc", 3);
}

TEST(a_memory_mapped_read_fills_the_exit)
{
    struct fixture *fixture = *unused;
    struct kvm_run *run = &fixture->shared.run;

    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = 0x1004;
    run->mmio.len = 2;

    assert_int_equal(handle(fixture), VCPU_RUN_ON);
    assert_int_equal(run->mmio.data[0], 0x44);
    assert_int_equal(run->mmio.data[1], 0x44);
    assert_int_equal(run->mmio.data[2], 0);
}

TEST(a_triple_fault_is_a_reset)
{
    struct fixture *fixture = *unused;

    fixture->shared.run.exit_reason = KVM_EXIT_SHUTDOWN;
    assert_int_equal(handle(fixture), VCPU_RESET);
}

TEST(what_can_not_be_handled_fails_with_a_reason)
{
    struct fixture *fixture = *unused;
    struct kvm_run *run = &fixture->shared.run;

    run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run->internal.ndata = 1000;
    assert_int_equal(handle(fixture), VCPU_FAILED);
    assert_non_null(strstr(fixture->reason, "does not emulate"));

    run->exit_reason = 12345;
    assert_int_equal(handle(fixture), VCPU_FAILED);
    assert_non_null(strstr(fixture->reason, "12345"));
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_string_of_port_writes_reaches_the_device_byte_by_byte),
        CASE(a_memory_mapped_read_fills_the_exit),
        CASE(a_triple_fault_is_a_reset),
        CASE(what_can_not_be_handled_fails_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
