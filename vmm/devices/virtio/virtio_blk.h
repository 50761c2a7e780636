/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk.h - a disk for the guest (virtio 1.2, 5.2).
 *
 * Requests are executed by an I/O engine that a 'disk' thread owns, straight between the image and
 * guest memory. A stopped disk has none in flight: those not begun are in the guest's queue.
 * Thread: as device.h.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_H

#include <stdbool.h>

#include "storage/io_engine.h"
#include "vmm/devices/device.h"

struct block;
struct pci_bus;

struct virtio_blk_options {
    uint32_t instance;
    const char *serial; /* copied; the guest sees its first 20 bytes */
    bool is_read_only;
    enum io_engine_kind engine;
};

/* The disk has no image yet and can not be started. */
ERR_RESULT virtio_blk_create(struct device_host *host, struct pci_bus *bus,
                             const struct virtio_blk_options *options, struct device **out_device);

/* Sets the image, or takes it away (NULL), while the device is stopped. The image stays the
 * caller's. ERR_INCOMPATIBLE when a restored guest knows the disk with another size. */
ERR_RESULT virtio_blk_attach(struct device *device, struct block *block);

#endif
