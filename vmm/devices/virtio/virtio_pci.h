/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_pci.h - the PCI transport of virtio devices (virtio 1.2, 4.1), modern only.
 *
 * A device embeds struct virtio_pci and gives it a model: what the transport calls. The queues
 * belong to the model between run and halt, to the transport else:
 *
 *     model->run     the driver is ready and the machine runs: look at every queue, then wait for
 *                    notify_fd of each to become readable
 *     model->halt    returns when nothing is in flight and no queue will be looked at
 *
 * Thread: virtio_pci_interrupt, _config_changed, _fail: any; the rest: with the device lock held,
 * or the vCPUs standing still. run and halt are called by vCPUs and by the loop.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_PCI_H
#define VMM_DEVICES_VIRTIO_VIRTIO_PCI_H

#include <stdatomic.h>

#include "proto/device_state.pb-c.h"
#include "vmm/bus/pci_function.h"
#include "vmm/devices/device.h"
#include "vmm/devices/virtio/virtqueue.h"

#define VIRTIO_PCI_QUEUES_MAX 4u

struct pci_bus;
struct virtio_pci;

struct virtio_model {
    struct pci_function_ops function_ops; /* VIRTIO_FUNCTION_OPS("name") */
    uint16_t device_id;                   /* virtio 1.2, 5 */
    uint32_t class_code;
    unsigned queue_count;
    uint16_t queue_size;
    size_t config_bytes;
    /* The device configuration, all config_bytes of it. Called with the device lock held. */
    void (*config_read)(struct virtio_pci *pci, uint8_t *out_config);
    void (*run)(struct virtio_pci *pci);
    void (*halt)(struct virtio_pci *pci);
};

struct virtio_pci_queue {
    struct virtqueue queue;
    int notify_fd;                /* owned; an eventfd in blocking mode */
    _Atomic uint16_t msix_vector; /* a value alone: set by the driver, read when firing */
};

struct virtio_pci {
    struct device base;
    struct pci_function function;
    struct pci_bus *bus;
    const struct virtio_model *model;
    uint64_t features; /* offered */
    uint64_t driver_features;
    uint32_t device_feature_select;
    uint32_t driver_feature_select;
    uint16_t queue_select;
    uint8_t status;             /* without "needs reset" */
    _Atomic bool needs_reset;   /* a flag alone, set by whoever meets a broken queue */
    _Atomic uint8_t isr;        /* a set of bits alone */
    _Atomic uint8_t generation; /* a counter alone */
    _Atomic uint16_t config_msix_vector;
    bool is_started;
    bool is_running;      /* between run and halt */
    bool is_restored;     /* interrupts may have been lost on the way */
    uint8_t window_at;    /* the configuration access capability */
    uint32_t notify_base; /* where notifications are registered; 0: nowhere */
    struct virtio_pci_queue queues[VIRTIO_PCI_QUEUES_MAX];
};

/* Puts the device on the bus. `features` are the model's; the transport adds its own. */
ERR_RESULT virtio_pci_init(struct virtio_pci *pci, const struct device_ops *ops,
                           struct device_host *host, struct pci_bus *bus,
                           const struct virtio_model *model, uint64_t features);
void virtio_pci_finish(struct virtio_pci *pci); /* accepts a zeroed one */

static inline struct virtio_pci *virtio_pci_of(struct device *device)
{
    return (struct virtio_pci *)(void *)((char *)device - offsetof(struct virtio_pci, base));
}

static inline bool virtio_pci_has_feature(const struct virtio_pci *pci, unsigned bit)
{
    return (pci->driver_features >> bit & 1) != 0;
}

/* Interrupts the driver for a queue, after virtqueue_publish has asked for it. */
void virtio_pci_interrupt(struct virtio_pci *pci, unsigned queue);
void virtio_pci_config_changed(struct virtio_pci *pci);
/* A queue is broken: tells the driver that the device needs a reset. */
void virtio_pci_fail(struct virtio_pci *pci);

/* For the device's ops table, or to be called by the device's own. */
void virtio_pci_reset(struct device *device);
ERR_RESULT virtio_pci_start(struct device *device);
void virtio_pci_stop(struct device *device);

ERR_RESULT virtio_pci_save(struct virtio_pci *pci, Ferry__VirtioPciState **out_state);
ERR_RESULT virtio_pci_validate(const struct virtio_pci *pci, const Ferry__VirtioPciState *state);
void virtio_pci_apply(struct virtio_pci *pci, const Ferry__VirtioPciState *state);

/* What the model's function_ops are made of. */
void virtio_pci_bar_read(struct pci_function *function, uint64_t offset, uint8_t *out_data,
                         size_t len);
void virtio_pci_bar_write(struct pci_function *function, uint64_t offset, const uint8_t *data,
                          size_t len);
void virtio_pci_bar_moved(struct pci_function *function);
void virtio_pci_before_config_read(struct pci_function *function, uint8_t offset, size_t len);
void virtio_pci_after_config_write(struct pci_function *function, uint8_t offset, size_t len);

#define VIRTIO_FUNCTION_OPS(text)                                                                  \
    {                                                                                              \
        .name = (text),                                                                            \
        .bar_read = virtio_pci_bar_read,                                                           \
        .bar_write = virtio_pci_bar_write,                                                         \
        .bar_moved = virtio_pci_bar_moved,                                                         \
        .before_config_read = virtio_pci_before_config_read,                                       \
        .after_config_write = virtio_pci_after_config_write,                                       \
    }

#endif
