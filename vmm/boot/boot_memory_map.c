/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot_memory_map.c - see boot_memory_map.h.
 * Tested by: guest_boot_test.c.
 */
#include "vmm/boot/boot_memory_map.h"

#include "vmm/memory/guest_memory.h"

size_t boot_memory_map(const struct guest_memory *memory,
                       struct boot_range out_ranges[BOOT_RANGES_MAX])
{
    size_t count = 0;

    out_ranges[count++] = (struct boot_range){0, BOOT_LOW_RAM_END, BOOT_RANGE_RAM};
    out_ranges[count++] =
        (struct boot_range){BOOT_LOW_RAM_END, 0xa0000u - BOOT_LOW_RAM_END, BOOT_RANGE_RESERVED};
    out_ranges[count++] = (struct boot_range){BOOT_ACPI_ADDRESS, BOOT_ACPI_END - BOOT_ACPI_ADDRESS,
                                              BOOT_RANGE_RESERVED};
    for (size_t i = 0; i < guest_memory_region_count(memory); i++) {
        const struct guest_region region = guest_memory_region(memory, i);
        uint64_t skipped = region.start.value == 0 ? BOOT_ACPI_END : 0;
        out_ranges[count++] = (struct boot_range){region.start.value + skipped,
                                                  region.bytes - skipped, BOOT_RANGE_RAM};
    }
    return count;
}
