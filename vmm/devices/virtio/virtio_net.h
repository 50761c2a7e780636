/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net.h - a network card for the guest (virtio 1.2, 5.1).
 *
 * One 'net' thread moves the packets of one card. A restored card announces itself: the guest is
 * asked to, and the host's switches learn the new place from RARP broadcasts.
 * Thread: as device.h.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_NET_H
#define VMM_DEVICES_VIRTIO_VIRTIO_NET_H

#include "vmm/devices/device.h"
#include "vmm/devices/virtio/net_tap.h"

struct pci_bus;

struct virtio_net_options {
    uint32_t instance;
    uint8_t mac[6];
    struct net_tap tap; /* the device's from a successful create on */
};

ERR_RESULT virtio_net_create(struct device_host *host, struct pci_bus *bus,
                             const struct virtio_net_options *options, struct device **out_device);

#endif
