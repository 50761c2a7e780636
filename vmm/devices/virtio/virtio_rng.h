/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_rng.h - the host's random numbers for the guest (virtio 1.2, 5.4).
 *
 * Thread: as device.h.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_RNG_H
#define VMM_DEVICES_VIRTIO_VIRTIO_RNG_H

#include "vmm/devices/device.h"

struct pci_bus;

ERR_RESULT virtio_rng_create(struct device_host *host, struct pci_bus *bus, uint32_t instance,
                             struct device **out_device);

#endif
