/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_driver_fake.h - a guest's driver of one virtio function, for unit tests of devices.
 *
 * It finds the function on the PCI bus, negotiates, and interrupts arrive with data 0x40 for
 * configuration changes and 0x41 + n for queue n. Thread: the test's.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_DRIVER_FAKE_H
#define VMM_DEVICES_VIRTIO_VIRTIO_DRIVER_FAKE_H

#include "vmm/devices/device_host_fake.h"
#include "vmm/devices/virtio/virtqueue_driver_fake.h"

struct virtio_driver_fake {
    struct device_host_fake *fake;
    uint32_t bar;
};

/* Enables the BAR and MSI-X of the function in this slot. */
void virtio_driver_fake_init(struct virtio_driver_fake *driver, struct device_host_fake *fake,
                             unsigned slot);

uint64_t virtio_driver_fake_read(struct virtio_driver_fake *driver, uint32_t offset, size_t len);
void virtio_driver_fake_write(struct virtio_driver_fake *driver, uint32_t offset, uint64_t value,
                              size_t len);
/* Of the device configuration. */
uint64_t virtio_driver_fake_config(struct virtio_driver_fake *driver, uint32_t offset, size_t len);

uint64_t virtio_driver_fake_features(struct virtio_driver_fake *driver);
/* From reset to FEATURES_OK; false when the device refuses. */
bool virtio_driver_fake_negotiate(struct virtio_driver_fake *driver, uint64_t features);
void virtio_driver_fake_set_queue(struct virtio_driver_fake *driver, unsigned index,
                                  const struct virtqueue_driver_fake *rings);
void virtio_driver_fake_ready(struct virtio_driver_fake *driver);
uint8_t virtio_driver_fake_status(struct virtio_driver_fake *driver);
/* As a guest does: through the notification where one is registered, else by an exit. */
void virtio_driver_fake_notify(struct virtio_driver_fake *driver, unsigned index);
unsigned virtio_driver_fake_interrupts(struct virtio_driver_fake *driver, unsigned index);
unsigned virtio_driver_fake_config_interrupts(struct virtio_driver_fake *driver);

#endif
