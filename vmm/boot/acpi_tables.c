/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi_tables.c - see acpi_tables.h. Section numbers are of ACPI 6.5.
 *
 * The DSDT comes compiled from dsdt.asl; the rest depends on the machine and is built here. Each
 * table's checksum is set when its last byte is in place.
 */
#include "vmm/boot/acpi_tables.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "vmm/boot/boot_memory_map.h"
#include "vmm/boot/dsdt.h"
#include "vmm/bus/platform_map.h"
#include "vmm/memory/guest_memory.h"

#define TABLE_HEADER_BYTES 36u
#define RSDP_BYTES         36u
#define FADT_BYTES         276u
#define TABLE_ALIGNMENT    16u
#define ACPI_REVISION      2u

/* 5.2.9, table 5.9: fixed feature flags. The sleep button (SLP_BUTTON) is a control method
 * device, which is to say that there is none; a clear PWR_BUTTON is a fixed power button. */
#define FADT_WBINVD     (1u << 0)
#define FADT_PROC_C1    (1u << 2)
#define FADT_SLP_BUTTON (1u << 5)
#define FADT_RESET_REG  (1u << 10)

/* 5.2.9.3: IA-PC boot architecture flags. 8042 is clear, so that no driver spends seconds on
 * probing for a keyboard; the port of the reset register answers all the same. */
#define BOOT_LEGACY_DEVICES 1u
#define BOOT_NO_VGA         4u

#define ADDRESS_SPACE_IO 1u
#define RESET_PULSE      0xfeu /* i8042 command: pulse the reset line */

#define MADT_PCAT_COMPAT  1u /* 5.2.12: there are two 8259s */
#define MADT_LAPIC        0u
#define MADT_IOAPIC       1u
#define MADT_ISA_OVERRIDE 2u
#define MADT_LAPIC_NMI    4u
#define LAPIC_ENABLED     1u
#define ISA_BUS           0u
#define LEVEL_ACTIVE_HIGH 0x0du
#define ALL_PROCESSORS    0xffu
#define IOAPIC_ID         0u
#define TIMER_GSI         2u

struct table {
    struct writer out;
    uint8_t *start;
    size_t checksum_at;
};

static uint8_t byte_sum(const uint8_t *data, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + data[i]);
    return sum;
}

static struct table table_begin(struct writer *out, const char *signature, uint8_t revision)
{
    struct table table = {.start = out->at, .checksum_at = 9};

    table.out = *out;
    writer_bytes(&table.out, signature, 4);
    writer_le32(&table.out, 0); /* length, set at the end */
    writer_u8(&table.out, revision);
    writer_u8(&table.out, 0);
    writer_bytes(&table.out, "FERRY ", 6);
    writer_bytes(&table.out, "FERRYVM ", 8);
    writer_le32(&table.out, 1);
    writer_bytes(&table.out, "FRRY", 4);
    writer_le32(&table.out, 1);
    return table;
}

static void table_end(struct table *table, struct writer *out)
{
    if (writer_ok(&table->out)) {
        size_t len = (size_t)(table->out.at - table->start);
        struct writer length = writer_of(table->start + 4, 4);
        writer_le32(&length, (uint32_t)len);
        table->start[table->checksum_at] = (uint8_t)-byte_sum(table->start, len);
    }
    *out = table->out;
    while (writer_ok(out) && (uintptr_t)(out->at - table->start) % TABLE_ALIGNMENT != 0)
        writer_u8(out, 0);
}

static void generic_address(struct writer *out, uint8_t bits, uint64_t port)
{
    writer_u8(out, ADDRESS_SPACE_IO);
    writer_u8(out, bits);
    writer_u8(out, 0);
    writer_u8(out, bits == 8 ? 1 : bits == 16 ? 2 : 3); /* access size */
    writer_le64(out, port);
}

static void no_address(struct writer *out)
{
    writer_bytes(out, (uint8_t[12]){0}, 12);
}

/* 5.2.9 */
static void build_fadt(struct writer *out, uint64_t dsdt)
{
    struct table table = table_begin(out, "FACP", 6);
    struct writer *w = &table.out;

    writer_le32(w, 0); /* FIRMWARE_CTRL */
    writer_le32(w, (uint32_t)dsdt);
    writer_u8(w, 0);
    writer_u8(w, 0); /* preferred profile: unspecified */
    writer_le16(w, IRQ_ACPI_SCI);
    writer_le32(w, 0); /* no SMI command port: ACPI is always on */
    writer_le32(w, 0); /* ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT */
    writer_le32(w, PORT_ACPI_PM1_EVENT);
    writer_le32(w, 0); /* PM1b event */
    writer_le32(w, PORT_ACPI_PM1_CONTROL);
    writer_le32(w, 0); /* PM1b control */
    writer_le32(w, 0); /* PM2 control */
    writer_le32(w, 0); /* PM timer: none, kvmclock and the TSC serve */
    writer_le32(w, 0); /* GPE0 */
    writer_le32(w, 0); /* GPE1 */
    writer_u8(w, 4);   /* PM1 event length */
    writer_u8(w, 2);   /* PM1 control length */
    writer_bytes(w, (uint8_t[6]){0}, 6);
    writer_le16(w, 0xfff); /* C2 and C3 latencies: not supported */
    writer_le16(w, 0xfff);
    writer_bytes(w, (uint8_t[8]){0}, 8); /* flushing, duty, alarms */
    writer_u8(w, 0);                     /* century register */
    writer_le16(w, BOOT_LEGACY_DEVICES | BOOT_NO_VGA);
    writer_u8(w, 0);
    writer_le32(w, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RESET_REG);
    generic_address(w, 8, PORT_I8042_COMMAND);
    writer_u8(w, RESET_PULSE);
    writer_le16(w, 0); /* ARM flags */
    writer_u8(w, 5);   /* minor version */
    writer_le64(w, 0); /* X_FIRMWARE_CTRL */
    writer_le64(w, dsdt);
    generic_address(w, 32, PORT_ACPI_PM1_EVENT);
    no_address(w);
    generic_address(w, 16, PORT_ACPI_PM1_CONTROL);
    for (int i = 0; i < 5; i++)
        no_address(w); /* PM1b control, PM2, PM timer, GPE0, GPE1 */
    no_address(w);     /* sleep control and status: hardware-reduced machines only */
    no_address(w);
    writer_bytes(w, "Ferry\0\0\0", 8); /* hypervisor vendor */
    table_end(&table, out);
}

static void isa_override(struct writer *out, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    writer_u8(out, MADT_ISA_OVERRIDE);
    writer_u8(out, 10);
    writer_u8(out, ISA_BUS);
    writer_u8(out, irq);
    writer_le32(out, gsi);
    writer_le16(out, flags);
}

/* 5.2.12 */
static void build_madt(struct writer *out, unsigned vcpus)
{
    struct table table = table_begin(out, "APIC", 5);
    struct writer *w = &table.out;

    writer_le32(w, ADDRESS_LAPIC);
    writer_le32(w, MADT_PCAT_COMPAT);
    for (unsigned i = 0; i < vcpus; i++) {
        writer_u8(w, MADT_LAPIC);
        writer_u8(w, 8);
        writer_u8(w, (uint8_t)i); /* the processor's _UID */
        writer_u8(w, (uint8_t)i); /* APIC id */
        writer_le32(w, LAPIC_ENABLED);
    }
    writer_u8(w, MADT_IOAPIC);
    writer_u8(w, 12);
    writer_u8(w, IOAPIC_ID);
    writer_u8(w, 0);
    writer_le32(w, ADDRESS_IOAPIC);
    writer_le32(w, 0); /* its first GSI */
    isa_override(w, 0, TIMER_GSI, 0);
    isa_override(w, IRQ_ACPI_SCI, IRQ_ACPI_SCI, LEVEL_ACTIVE_HIGH);
    writer_u8(w, MADT_LAPIC_NMI);
    writer_u8(w, 6);
    writer_u8(w, ALL_PROCESSORS);
    writer_le16(w, 0);
    writer_u8(w, 1); /* LINT1 */
    table_end(&table, out);
}

static void build_xsdt(struct writer *out, uint64_t fadt, uint64_t madt)
{
    struct table table = table_begin(out, "XSDT", 1);

    writer_le64(&table.out, fadt);
    writer_le64(&table.out, madt);
    table_end(&table, out);
}

/* 5.2.5.3: the first checksum covers 20 bytes, the second all. */
static void fill_rsdp(uint8_t *rsdp, uint64_t xsdt)
{
    struct writer out = writer_of(rsdp, RSDP_BYTES);

    writer_bytes(&out, "RSD PTR ", 8);
    writer_u8(&out, 0);
    writer_bytes(&out, "FERRY ", 6);
    writer_u8(&out, ACPI_REVISION);
    writer_le32(&out, 0); /* RSDT: the XSDT is enough */
    writer_le32(&out, RSDP_BYTES);
    writer_le64(&out, xsdt);
    writer_le32(&out, 0);
    rsdp[8] = (uint8_t)-byte_sum(rsdp, 20);
    rsdp[32] = (uint8_t)-byte_sum(rsdp, RSDP_BYTES);
}

struct err *acpi_tables_build(unsigned vcpus, uint64_t address, uint8_t *out_bytes,
                              size_t bytes_max, size_t *out_len)
{
    struct writer out = writer_of(out_bytes, bytes_max);
    const uint8_t *start = out_bytes;

    writer_bytes(&out, (uint8_t[48]){0}, 48); /* the RSDP, filled last */
    uint64_t dsdt = address + (uint64_t)(out.at - start);
    writer_bytes(&out, dsdt_aml, dsdt_aml_bytes);
    while (writer_ok(&out) && (out.at - start) % TABLE_ALIGNMENT != 0)
        writer_u8(&out, 0);
    uint64_t fadt = address + (uint64_t)(out.at - start);
    build_fadt(&out, dsdt);
    uint64_t madt = address + (uint64_t)(out.at - start);
    build_madt(&out, vcpus);
    uint64_t xsdt = address + (uint64_t)(out.at - start);
    build_xsdt(&out, fadt, madt);
    if (!writer_ok(&out))
        return err_new(ERR_INVALID, "ACPI tables of %u vCPUs do not fit in %zu bytes", vcpus,
                       bytes_max);

    fill_rsdp(out_bytes, xsdt);
    *out_len = (size_t)(out.at - start);
    return NULL;
}

struct err *acpi_tables_load(struct guest_memory *memory, unsigned vcpus, uint64_t *out_rsdp)
{
    const size_t room = BOOT_ACPI_END - BOOT_ACPI_ADDRESS;
    CLEANUP(cleanup_free) uint8_t *bytes = calloc(1, room);
    size_t len = 0;

    if (bytes == NULL)
        return err_new(ERR_NO_MEMORY, "ACPI tables");
    TRY(acpi_tables_build(vcpus, BOOT_ACPI_ADDRESS, bytes, room, &len));
    if (!guest_write(memory, gpa(BOOT_ACPI_ADDRESS), bytes, len))
        return err_new(ERR_INVALID, "ACPI tables need more than 1 MiB of guest memory");
    *out_rsdp = BOOT_ACPI_ADDRESS;
    return NULL;
}
