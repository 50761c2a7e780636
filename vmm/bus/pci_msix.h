/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_msix.h - the MSI-X table, pending bits and masks of one PCI function.
 *
 * Thread: pci_msix_fire: any; the rest: with the device lock held, or the vCPUs standing still.
 */
#ifndef VMM_BUS_PCI_MSIX_H
#define VMM_BUS_PCI_MSIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/device_state.pb-c.h"

#define PCI_MSIX_VECTORS_MAX 64u
#define PCI_MSIX_ENTRY_BYTES 16u

struct interrupts;
struct pci_msix;

ERR_RESULT pci_msix_create(struct interrupts *interrupts, uint16_t vector_count,
                           struct pci_msix **out_msix);
void pci_msix_destroy(struct pci_msix *msix); /* accepts NULL */

uint16_t pci_msix_vector_count(const struct pci_msix *msix);

/* Interrupts the guest, or remembers to when the vector is unmasked. Vectors that the function
 * does not have (VIRTIO_MSI_NO_VECTOR among them) are silence. */
void pci_msix_fire(struct pci_msix *msix, uint16_t vector);

/* The enable and function mask bits of the capability. */
void pci_msix_set_control(struct pci_msix *msix, bool is_enabled, bool is_masked);

void pci_msix_table_read(struct pci_msix *msix, uint64_t offset, uint8_t *out_data, size_t len);
void pci_msix_table_write(struct pci_msix *msix, uint64_t offset, const uint8_t *data, size_t len);
void pci_msix_pending_read(struct pci_msix *msix, uint64_t offset, uint8_t *out_data, size_t len);

void pci_msix_reset(struct pci_msix *msix);

ERR_RESULT pci_msix_save(struct pci_msix *msix, Ferry__PciMsixState **out_state);
ERR_RESULT pci_msix_validate(const struct pci_msix *msix, const Ferry__PciMsixState *state);
void pci_msix_apply(struct pci_msix *msix, const Ferry__PciMsixState *state);
/* Gives the host the routes of all vectors that are in use. */
ERR_RESULT pci_msix_start(struct pci_msix *msix);

#endif
