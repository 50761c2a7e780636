/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/bytes.h"
#include "base/unit_test.h"
#include "vmm/boot/acpi_tables.h"
#include "vmm/boot/boot_memory_map.h"

#define ADDRESS 0xe0000u

static uint8_t bytes[65536];

static uint8_t sum(const uint8_t *data, size_t len)
{
    uint8_t total = 0;
    for (size_t i = 0; i < len; i++)
        total = (uint8_t)(total + data[i]);
    return total;
}

static uint64_t le64(const uint8_t *at)
{
    struct reader in = reader_of(at, 8);
    return reader_le64(&in);
}

static uint32_t le32(const uint8_t *at)
{
    return (uint32_t)le64(at);
}

/* Checks signature and checksum of the table at a guest address. */
static const uint8_t *table_at(uint64_t address, const char *signature)
{
    const uint8_t *table = bytes + (address - ADDRESS);

    assert_memory_equal(table, signature, 4);
    assert_int_equal(sum(table, le32(table + 4)), 0);
    return table;
}

TEST(every_table_is_reached_from_the_rsdp_and_sums_to_zero)
{
    size_t len = 0;
    ASSERT_OK(acpi_tables_build(2, ADDRESS, bytes, sizeof(bytes), &len));

    assert_memory_equal(bytes, "RSD PTR ", 8);
    assert_int_equal(sum(bytes, 20), 0);
    assert_int_equal(sum(bytes, 36), 0);
    const uint8_t *xsdt = table_at(le64(bytes + 24), "XSDT");
    assert_int_equal(le32(xsdt + 4), 36 + 2 * 8);
    const uint8_t *fadt = table_at(le64(xsdt + 36), "FACP");
    assert_int_equal(le32(fadt + 4), 276);
    (void)table_at(le32(fadt + 40), "DSDT");
    (void)table_at(le64(fadt + 140), "DSDT");
    (void)table_at(le64(xsdt + 44), "APIC");
}

TEST(the_madt_lists_each_vcpu)
{
    size_t len = 0;
    ASSERT_OK(acpi_tables_build(5, ADDRESS, bytes, sizeof(bytes), &len));
    const uint8_t *xsdt = table_at(le64(bytes + 24), "XSDT");
    const uint8_t *madt = table_at(le64(xsdt + 44), "APIC");
    unsigned lapics = 0;

    for (size_t at = 44; at < le32(madt + 4); at += madt[at + 1]) {
        if (madt[at] == 0)
            assert_int_equal(madt[at + 3], lapics++);
    }
    assert_int_equal(lapics, 5);
}

TEST(tables_that_do_not_fit_are_refused)
{
    size_t len = 0;

    assert_fails(acpi_tables_build(1, ADDRESS, bytes, 256, &len), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_is_reached_from_the_rsdp_and_sums_to_zero),
        cmocka_unit_test(the_madt_lists_each_vcpu),
        cmocka_unit_test(tables_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
