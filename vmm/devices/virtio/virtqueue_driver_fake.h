/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue_driver_fake.h - the driver's side of a queue, for unit tests of devices.
 *
 * Thread: the test's.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTQUEUE_DRIVER_FAKE_H
#define VMM_DEVICES_VIRTIO_VIRTQUEUE_DRIVER_FAKE_H

#include "vmm/devices/virtio/virtqueue.h"

struct virtqueue_driver_fake {
    struct guest_memory *memory;
    uint16_t size;
    gpa_t descriptors;
    gpa_t available;
    gpa_t used;
    uint16_t next_descriptor;
    uint16_t available_index;
    uint16_t used_index;
};

struct driver_buffer {
    gpa_t address;
    uint32_t len;
    enum virtqueue_part part;
};

/* Lays an empty queue out at `start`, a page-aligned piece of RAM that takes 64 KiB. */
void virtqueue_driver_fake_init(struct virtqueue_driver_fake *driver, struct guest_memory *memory,
                                gpa_t start, uint16_t size);
/* The device's queue looks at this driver's rings. */
void virtqueue_driver_fake_attach(const struct virtqueue_driver_fake *driver,
                                  struct virtqueue *queue);
/* Writes a raw descriptor. */
void virtqueue_driver_fake_describe(struct virtqueue_driver_fake *driver, gpa_t table,
                                    uint16_t index, struct driver_buffer buffer, int next);
/* Links the buffers into a chain of fresh descriptors and makes it available; returns its head. */
uint16_t virtqueue_driver_fake_add(struct virtqueue_driver_fake *driver,
                                   const struct driver_buffer *buffers, size_t count);
/* Makes any head available. */
void virtqueue_driver_fake_offer(struct virtqueue_driver_fake *driver, uint16_t head);
/* The next used entry; false when there is none. */
bool virtqueue_driver_fake_used(struct virtqueue_driver_fake *driver, uint32_t *out_head,
                                uint32_t *out_written);
/* "Interrupt me when used.idx passes index": only with event indexes. */
void virtqueue_driver_fake_want(struct virtqueue_driver_fake *driver, uint16_t index);

#endif
