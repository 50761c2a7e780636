/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_function.h - one PCI function: its configuration space and its one memory BAR.
 *
 * BAR 0 is 32 bits wide and holds everything, the MSI-X table among it. It answers while the
 * command register enables memory and its address is in the PCI window.
 * Thread: with the device lock held, or the vCPUs standing still.
 */
#ifndef VMM_BUS_PCI_FUNCTION_H
#define VMM_BUS_PCI_FUNCTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/device_state.pb-c.h"

#define PCI_CONFIG_BYTES 256u

struct io_bus;
struct io_range;
struct pci_function;
struct pci_msix;

struct pci_function_ops {
    const char *name;
    void (*bar_read)(struct pci_function *function, uint64_t offset, uint8_t *out_data, size_t len);
    void (*bar_write)(struct pci_function *function, uint64_t offset, const uint8_t *data,
                      size_t len);
    /* The BAR answers at bar_address from now on, or nowhere when that is 0. */
    void (*bar_moved)(struct pci_function *function);
    /* For registers with effects behind the header: called around the access itself. */
    void (*before_config_read)(struct pci_function *function, uint8_t offset, size_t len);
    void (*after_config_write)(struct pci_function *function, uint8_t offset, size_t len);
};

struct pci_function {
    const struct pci_function_ops *ops;
    struct io_bus *mmio;
    struct io_range *range; /* owned by the bus; NULL while the BAR answers nowhere */
    uint32_t bar_bytes;     /* a power of two; 0: no BAR */
    uint32_t bar_initial;   /* where it is placed at power-on */
    uint32_t bar_address;   /* where it answers; 0: nowhere */
    struct pci_msix *msix;  /* NULL: none */
    uint8_t msix_at;        /* its capability's offset */
    uint8_t capabilities_end;
    uint8_t slot;
    uint8_t config[PCI_CONFIG_BYTES];
    uint8_t writable[PCI_CONFIG_BYTES]; /* bits that the guest may change */
};

struct pci_identity {
    uint16_t vendor;
    uint16_t device;
    uint16_t subsystem_vendor;
    uint16_t subsystem;
    uint32_t class_code; /* class, subclass, interface in 24 bits */
    uint8_t revision;
};

void pci_function_init(struct pci_function *function, const struct pci_function_ops *ops,
                       const struct pci_identity *identity, struct io_bus *mmio);
void pci_function_finish(struct pci_function *function); /* its BAR stops to answer */

/* Appends a capability of `len` bytes, the two of its head among them; returns its offset. Its
 * body is copied and read-only; `writable` bits can be set by the caller. */
uint8_t pci_function_add_capability(struct pci_function *function, uint8_t id, const void *body,
                                    uint8_t len);
/* The table and pending bits stand at these offsets of the BAR. */
void pci_function_add_msix(struct pci_function *function, struct pci_msix *msix,
                           uint32_t table_offset, uint32_t pending_offset);
void pci_function_place_bar(struct pci_function *function, uint32_t address, uint32_t bytes);

void pci_function_config_read(struct pci_function *function, uint8_t offset, uint8_t *out_data,
                              size_t len);
void pci_function_config_write(struct pci_function *function, uint8_t offset, const uint8_t *data,
                               size_t len);

void pci_function_reset(struct pci_function *function);

ERR_RESULT pci_function_save(struct pci_function *function, Ferry__PciFunctionState **out_state);
ERR_RESULT pci_function_validate(const struct pci_function *function,
                                 const Ferry__PciFunctionState *state);
void pci_function_apply(struct pci_function *function, const Ferry__PciFunctionState *state);

#endif
