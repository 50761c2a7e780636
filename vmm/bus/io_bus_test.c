/* SPDX-License-Identifier: Apache-2.0 */
/* io_bus_test.c - who answers at an address, and what a wrong address does. */
#include <string.h>

#include "base/unit_test.h"
#include "vmm/bus/io_bus.h"

struct probe {
    uint8_t bytes[16];
    size_t calls;
};

static void probe_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    struct probe *probe = context;

    assert_true(offset + len <= sizeof(probe->bytes));
    memcpy(out_data, &probe->bytes[offset], len);
    probe->calls++;
}

static void probe_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct probe *probe = context;

    assert_true(offset + len <= sizeof(probe->bytes));
    memcpy(&probe->bytes[offset], data, len);
    probe->calls++;
}

static const struct io_range_ops probe_ops = {
    .name = "probe",
    .read = probe_read,
    .write = probe_write,
};

static struct io_range *add(struct io_bus *bus, uint64_t start, uint64_t len, struct probe *probe)
{
    struct io_range *range = NULL;

    ASSERT_OK(io_bus_add(bus, start, len, &probe_ops, probe, &range));
    return range;
}

TEST(an_access_reaches_the_range_with_its_offset)
{
    struct io_bus *bus = NULL;
    struct probe low = {.bytes = {0}};
    struct probe high = {.bytes = {0}};
    uint8_t data[4] = {1, 2, 3, 4};
    ASSERT_OK(io_bus_create(&bus));
    (void)add(bus, 0x3f8, 8, &low);
    (void)add(bus, 0x70, 2, &high);

    io_bus_write(bus, 0x3fa, data, sizeof(data));
    io_bus_read(bus, 0x3fb, data, 2);

    assert_int_equal(low.bytes[2], 1);
    assert_int_equal(data[0], 2);
    assert_int_equal(high.calls, 0);
    io_bus_destroy(bus);
}

TEST(an_address_that_nobody_claims_reads_as_ones)
{
    struct io_bus *bus = NULL;
    uint8_t data[8] = {0};
    ASSERT_OK(io_bus_create(&bus));

    io_bus_write(bus, 0x10, data, sizeof(data));
    io_bus_read(bus, 0x10, data, sizeof(data));

    for (size_t i = 0; i < sizeof(data); i++)
        assert_int_equal(data[i], 0xff);
    io_bus_destroy(bus);
}

TEST(an_access_across_the_end_of_a_range_is_taken_apart)
{
    struct io_bus *bus = NULL;
    struct probe first = {.bytes = {[3] = 0xaa}};
    struct probe second = {.bytes = {0xbb}};
    uint8_t data[4] = {0};
    ASSERT_OK(io_bus_create(&bus));
    (void)add(bus, 0x100, 4, &first);
    (void)add(bus, 0x104, 1, &second);

    io_bus_read(bus, 0x103, data, sizeof(data));

    assert_memory_equal(data, ((uint8_t[]){0xaa, 0xbb, 0xff, 0xff}), 4);
    io_bus_destroy(bus);
}

TEST(overlapping_ranges_are_refused_by_name)
{
    struct io_bus *bus = NULL;
    struct probe probe = {.calls = 0};
    struct io_range *range = NULL;
    ASSERT_OK(io_bus_create(&bus));
    (void)add(bus, 0x100, 16, &probe);

    assert_fails(io_bus_add(bus, 0x10f, 4, &probe_ops, &probe, &range), ERR_STATE);
    assert_fails(io_bus_add(bus, 0xf1, 16, &probe_ops, &probe, &range), ERR_STATE);
    assert_fails(io_bus_add(bus, UINT64_MAX, 2, &probe_ops, &probe, &range), ERR_INVALID);
    assert_fails(io_bus_add(bus, 0, 0, &probe_ops, &probe, &range), ERR_INVALID);
    (void)add(bus, 0xf0, 16, &probe);
    (void)add(bus, 0x110, 16, &probe);
    io_bus_destroy(bus);
}

TEST(a_removed_range_does_not_answer)
{
    struct io_bus *bus = NULL;
    struct probe probe = {.calls = 0};
    uint8_t byte = 0;
    ASSERT_OK(io_bus_create(&bus));
    (void)add(bus, 0x80, 4, &probe);
    struct io_range *range = add(bus, 0x100, 16, &probe);

    io_bus_remove(bus, range);
    io_bus_remove(bus, NULL);
    io_bus_read(bus, 0x100, &byte, 1);

    assert_int_equal(byte, 0xff);
    assert_int_equal(probe.calls, 0);
    io_bus_destroy(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_access_reaches_the_range_with_its_offset),
        cmocka_unit_test(an_address_that_nobody_claims_reads_as_ones),
        cmocka_unit_test(an_access_across_the_end_of_a_range_is_taken_apart),
        cmocka_unit_test(overlapping_ranges_are_refused_by_name),
        cmocka_unit_test(a_removed_range_does_not_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
