/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_bus.h - PCI bus 0: configuration by ports, the host bridge, and who sits in which slot.
 *
 * A device too (section "pci-bus"), because the address register has state. Slots and BARs are
 * given in the order of adding, so machines of one configuration are alike.
 * Thread: pci_bus_add: before the machine starts; the rest: as device.h.
 */
#ifndef VMM_BUS_PCI_BUS_H
#define VMM_BUS_PCI_BUS_H

#include "vmm/devices/device.h"

struct pci_bus;
struct pci_function;

ERR_RESULT pci_bus_create(struct device_host *host, struct pci_bus **out_bus);
struct device *pci_bus_device(struct pci_bus *bus); /* its destroy frees the bus */

/* bar_bytes is a power of two, or 0. The function stays the caller's and outlives the bus's use. */
ERR_RESULT pci_bus_add(struct pci_bus *bus, struct pci_function *function, uint32_t bar_bytes);
void pci_bus_remove(struct pci_bus *bus, struct pci_function *function);

#endif
