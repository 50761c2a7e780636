/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk.h - a disk for the guest (virtio 1.2, 5.2).
 *
 * Requests of each queue are executed by an I/O engine that a 'disk' thread owns, straight between
 * the image and guest memory. A stopped disk has none in flight: those not begun are in the guest's
 * queues.
 * Thread: as device.h.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_H

#include <stdbool.h>

#include "storage/io_engine.h"
#include "vmm/devices/device.h"
#include "vmm/devices/virtio/virtio_blk_request.h"

struct block;
struct pci_bus;

/* What happens to a request that the host can not do: it waits, and is tried again, or the guest
 * is told. */
enum virtio_blk_on_error {
    VIRTIO_BLK_WAIT_FOR_ROOM, /* it waits where there is no room, any other error is told */
    VIRTIO_BLK_WAIT,          /* it waits whatever the host says */
    VIRTIO_BLK_REPORT,
};

/* At most so much a second, of all queues together; 0: no limit. */
struct virtio_blk_rates {
    uint64_t requests_per_second;
    uint64_t bytes_per_second;
};

struct virtio_blk_options {
    uint32_t instance;
    unsigned queue_count; /* VIRTIO_PCI_QUEUES_MAX at most; 0: one */
    const char *serial;   /* copied; the guest sees its first 20 bytes */
    bool is_read_only;
    enum io_engine_kind engine;
    enum virtio_blk_on_error on_error;
    enum virtio_blk_zeroes zeroes;
    struct virtio_blk_rates rates;
};

/* The disk has no image yet and can not be started. */
ERR_RESULT virtio_blk_create(struct device_host *host, struct pci_bus *bus,
                             const struct virtio_blk_options *options, struct device **out_device);

/* Sets the image, or takes it away (NULL), while the device is stopped. The image stays the
 * caller's. ERR_INCOMPATIBLE when a restored guest knows the disk with another size. */
ERR_RESULT virtio_blk_attach(struct device *device, struct block *block);

/* Sets the image of a stopped device as virtio_blk_attach does, and tells the guest if it is larger
 * than what it knows. */
void virtio_blk_grow(struct device *device, struct block *block);

/* Other limits, also for what waits because of the earlier ones. */
void virtio_blk_set_rates(struct device *device, struct virtio_blk_rates rates);

/* Why requests wait for the host: one line, cut to fit; "" when none does. */
void virtio_blk_problem(struct device *device, char *out_text, size_t text_bytes);
/* Tries them again now. False when none waits. */
bool virtio_blk_retry(struct device *device);

#endif
