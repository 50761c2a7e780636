/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi_tables.h - the ACPI tables that tell a guest what the machine consists of.
 * Thread: loop.
 */
#ifndef VMM_BOOT_ACPI_TABLES_H
#define VMM_BOOT_ACPI_TABLES_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct guest_memory;

/* RSDP, XSDT, FADT, MADT and DSDT as bytes that belong at `address`, the RSDP first. */
ERR_RESULT acpi_tables_build(unsigned vcpus, uint64_t address, uint8_t *out_bytes, size_t bytes_max,
                             size_t *out_len);

/* Places them where guests search; *out_rsdp is the RSDP's address. */
ERR_RESULT acpi_tables_load(struct guest_memory *memory, unsigned vcpus, uint64_t *out_rsdp);

#endif
