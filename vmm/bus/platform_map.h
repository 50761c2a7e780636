/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platform_map.h - where everything of the machine is: ports, interrupt lines, address windows.
 *
 * Guests and saved states depend on these numbers, so they never change; the DSDT
 * (vmm/boot/dsdt.asl) repeats those that it describes.
 */
#ifndef VMM_BUS_PLATFORM_MAP_H
#define VMM_BUS_PLATFORM_MAP_H

/* Ports. */
#define PORT_I8042_DATA       0x60u
#define PORT_I8042_COMMAND    0x64u
#define PORT_RTC_INDEX        0x70u
#define PORT_RTC_DATA         0x71u
#define PORT_COM1             0x3f8u
#define PORT_ACPI_PM1_EVENT   0x600u /* status and enable, 2 bytes each */
#define PORT_ACPI_PM1_CONTROL 0x604u /* 2 bytes */
#define PORT_PCI_ADDRESS      0xcf8u
#define PORT_PCI_DATA         0xcfcu

/* Interrupt lines (GSIs). PCI functions have MSI-X only. */
#define IRQ_COM1     4u
#define IRQ_RTC      8u
#define IRQ_ACPI_SCI 9u

/* Guest-physical addresses. RAM is at 0..below_4g and from 4 GiB on. */
#define ADDRESS_PCI_HOLE       0xc0000000u /* RAM ends here at the latest */
#define ADDRESS_PCI_WINDOW     0xc0000000u /* BARs are placed here at start */
#define ADDRESS_PCI_WINDOW_END 0xfec00000u
#define ADDRESS_IOAPIC         0xfec00000u
#define ADDRESS_LAPIC          0xfee00000u
#define ADDRESS_KVM_TSS        0xfeffc000u /* three pages and one that KVM on VMX needs */
#define ADDRESS_KVM_IDENTITY   0xfeffb000u

#endif
