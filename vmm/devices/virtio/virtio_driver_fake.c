/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_driver_fake.c - see virtio_driver_fake.h.
 *
 * Tested by: the tests of every virtio device.
 */
#include "vmm/devices/virtio/virtio_driver_fake.h"

#include <linux/virtio_config.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/assert.h"
#include "vmm/bus/io_bus.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/virtio/virtio_pci_internal.h"

#define DATA_CONFIG 0x40u
#define DATA_QUEUE  0x41u

#define CONFIG_COMMAND      0x04u
#define CONFIG_BAR          0x10u
#define CONFIG_CAPABILITIES 0x34u

static void config_select(struct virtio_driver_fake *driver, unsigned slot, unsigned offset)
{
    device_host_fake_out(driver->fake, PORT_PCI_ADDRESS,
                         0x80000000u | slot << 11 | (offset & 0xfcu), 4);
}

static uint32_t config_in(struct virtio_driver_fake *driver, unsigned slot, unsigned offset,
                          size_t len)
{
    config_select(driver, slot, offset);
    return device_host_fake_in(driver->fake, (uint16_t)(PORT_PCI_DATA + offset % 4), len);
}

static void config_out(struct virtio_driver_fake *driver, unsigned slot, unsigned offset,
                       uint32_t value)
{
    config_select(driver, slot, offset);
    device_host_fake_out(driver->fake, (uint16_t)(PORT_PCI_DATA + offset % 4), value, 2);
}

void virtio_driver_fake_init(struct virtio_driver_fake *driver, struct device_host_fake *fake,
                             unsigned slot)
{
    *driver = (struct virtio_driver_fake){.fake = fake};
    ASSERT(config_in(driver, slot, 0, 2) == 0x1af4);
    config_out(driver, slot, CONFIG_COMMAND, 0x6);
    driver->bar = config_in(driver, slot, CONFIG_BAR, 4);

    unsigned at = config_in(driver, slot, CONFIG_CAPABILITIES, 1);
    while (config_in(driver, slot, at, 1) != 0x11)
        at = config_in(driver, slot, at + 1, 1);
    config_out(driver, slot, at + 2, 0x8000);
    for (uint32_t i = 0; i <= (config_in(driver, slot, at + 2, 2) & 0x7ff); i++) {
        virtio_driver_fake_write(driver, VIRTIO_PCI_MSIX_TABLE_AT + i * 16, 0xfee00000, 4);
        virtio_driver_fake_write(driver, VIRTIO_PCI_MSIX_TABLE_AT + i * 16 + 8, DATA_CONFIG + i, 4);
        virtio_driver_fake_write(driver, VIRTIO_PCI_MSIX_TABLE_AT + i * 16 + 12, 0, 4);
    }
}

uint64_t virtio_driver_fake_read(struct virtio_driver_fake *driver, uint32_t offset, size_t len)
{
    uint64_t value = 0;

    lock_acquire(&driver->fake->lock);
    io_bus_read(driver->fake->host.mmio, driver->bar + offset, (uint8_t *)&value, len);
    lock_release(&driver->fake->lock);
    return value;
}

void virtio_driver_fake_write(struct virtio_driver_fake *driver, uint32_t offset, uint64_t value,
                              size_t len)
{
    lock_acquire(&driver->fake->lock);
    io_bus_write(driver->fake->host.mmio, driver->bar + offset, (const uint8_t *)&value, len);
    lock_release(&driver->fake->lock);
}

uint64_t virtio_driver_fake_config(struct virtio_driver_fake *driver, uint32_t offset, size_t len)
{
    return virtio_driver_fake_read(driver, VIRTIO_PCI_DEVICE_AT + offset, len);
}

uint64_t virtio_driver_fake_features(struct virtio_driver_fake *driver)
{
    uint64_t features = 0;

    for (uint32_t select = 0; select < 2; select++) {
        virtio_driver_fake_write(driver, 0, select, 4);
        features |= virtio_driver_fake_read(driver, 4, 4) << (32 * select);
    }
    return features;
}

bool virtio_driver_fake_negotiate(struct virtio_driver_fake *driver, uint64_t features)
{
    virtio_driver_fake_write(driver, 20, 0, 1);
    virtio_driver_fake_write(driver, 20, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
    virtio_driver_fake_write(driver, 20, 3, 1);
    for (uint32_t select = 0; select < 2; select++) {
        virtio_driver_fake_write(driver, 8, select, 4);
        virtio_driver_fake_write(driver, 12, features >> (32 * select) & UINT32_MAX, 4);
    }
    virtio_driver_fake_write(driver, 20, 0xb, 1);
    virtio_driver_fake_write(driver, 16, 0, 2);
    return (virtio_driver_fake_status(driver) & VIRTIO_CONFIG_S_FEATURES_OK) != 0;
}

void virtio_driver_fake_set_queue(struct virtio_driver_fake *driver, unsigned index,
                                  const struct virtqueue_driver_fake *rings)
{
    const uint64_t addresses[] = {rings->descriptors.value, rings->available.value,
                                  rings->used.value};

    virtio_driver_fake_write(driver, 22, index, 2);
    virtio_driver_fake_write(driver, 24, rings->size, 2);
    virtio_driver_fake_write(driver, 26, index + 1, 2);
    for (uint32_t i = 0; i < 3; i++) {
        virtio_driver_fake_write(driver, 32 + i * 8, addresses[i] & UINT32_MAX, 4);
        virtio_driver_fake_write(driver, 36 + i * 8, addresses[i] >> 32, 4);
    }
    virtio_driver_fake_write(driver, 28, 1, 2);
}

void virtio_driver_fake_ready(struct virtio_driver_fake *driver)
{
    virtio_driver_fake_write(driver, 20, 0xf, 1);
}

uint8_t virtio_driver_fake_status(struct virtio_driver_fake *driver)
{
    return (uint8_t)virtio_driver_fake_read(driver, 20, 1);
}

void virtio_driver_fake_notify(struct virtio_driver_fake *driver, unsigned index)
{
    uint32_t offset = VIRTIO_PCI_NOTIFY_AT + index * VIRTIO_PCI_NOTIFY_MULTIPLIER;
    int fd = interrupts_fake_notify_fd(driver->fake->interrupts, driver->bar + offset);

    if (fd >= 0)
        ASSERT(eventfd_write(fd, 1) == 0);
    else
        virtio_driver_fake_write(driver, offset, index, 2);
}

unsigned virtio_driver_fake_interrupts(struct virtio_driver_fake *driver, unsigned index)
{
    return interrupts_fake_fired(driver->fake->interrupts, DATA_QUEUE + index);
}

unsigned virtio_driver_fake_config_interrupts(struct virtio_driver_fake *driver)
{
    return interrupts_fake_fired(driver->fake->interrupts, DATA_CONFIG);
}
