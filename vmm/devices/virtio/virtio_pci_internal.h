/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_pci_internal.h - the BAR's layout, and what the transport's files call of each other.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_PCI_INTERNAL_H
#define VMM_DEVICES_VIRTIO_VIRTIO_PCI_INTERNAL_H

#include <linux/virtio_config.h>

#include "vmm/devices/virtio/virtio_pci.h"

/* Saved states hold the guest's idea of these places: they never change. */
#define VIRTIO_PCI_COMMON_AT         0x0000u
#define VIRTIO_PCI_ISR_AT            0x1000u
#define VIRTIO_PCI_DEVICE_AT         0x2000u
#define VIRTIO_PCI_NOTIFY_AT         0x3000u
#define VIRTIO_PCI_MSIX_TABLE_AT     0x4000u
#define VIRTIO_PCI_MSIX_PENDING_AT   0x5000u
#define VIRTIO_PCI_BAR_SIZE          0x8000u
#define VIRTIO_PCI_AREA_BYTES        0x1000u
#define VIRTIO_PCI_COMMON_BYTES      60u
#define VIRTIO_PCI_NOTIFY_MULTIPLIER 4u

#define VIRTIO_PCI_NO_VECTOR 0xffffu

#define VIRTIO_TRANSPORT_FEATURES                                                                  \
    ((uint64_t)1 << VIRTIO_F_VERSION_1 | (uint64_t)1 << 28 /* indirect descriptors */ |            \
     (uint64_t)1 << 29 /* event indexes */)

void virtio_pci_common_read(struct virtio_pci *pci, uint64_t offset, uint8_t *out_data, size_t len);
void virtio_pci_common_write(struct virtio_pci *pci, uint64_t offset, const uint8_t *data,
                             size_t len);

/* As the driver sees it. */
uint8_t virtio_pci_status(const struct virtio_pci *pci);
/* After the status, the BAR or the machine has changed: runs or halts the model, and moves the
 * notifications. */
void virtio_pci_update(struct virtio_pci *pci);
/* What the driver asks for by writing 0 to the status. */
void virtio_pci_driver_reset(struct virtio_pci *pci);
/* Gives the negotiated features to the queues. */
void virtio_pci_features_apply(struct virtio_pci *pci);

#endif
