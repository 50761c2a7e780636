/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot_memory_map.h - where the machine's start puts things below 1 MiB, and which addresses the
 * guest is told to be RAM. Thread: any.
 */
#ifndef VMM_BOOT_BOOT_MEMORY_MAP_H
#define VMM_BOOT_BOOT_MEMORY_MAP_H

#include <stddef.h>
#include <stdint.h>

#define BOOT_GDT_ADDRESS          0x1000u
#define BOOT_START_INFO_ADDRESS   0x6000u
#define BOOT_PARAMS_ADDRESS       0x7000u
#define BOOT_PAGE_TABLES_ADDRESS  0x9000u /* six pages */
#define BOOT_COMMAND_LINE_ADDRESS 0x20000u
#define BOOT_LOW_RAM_END          0x9fc00u
#define BOOT_ACPI_ADDRESS         0xe0000u /* where the RSDP is searched for */
#define BOOT_ACPI_END             0x100000u

enum boot_range_kind { BOOT_RANGE_RAM = 1, BOOT_RANGE_RESERVED = 2 }; /* as in e820 */

struct boot_range {
    uint64_t start;
    uint64_t bytes;
    enum boot_range_kind kind;
};

#define BOOT_RANGES_MAX 16u

struct guest_memory;
size_t boot_memory_map(const struct guest_memory *memory,
                       struct boot_range out_ranges[BOOT_RANGES_MAX]);

#endif
