/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - what every device is to the machine: a name, a state message, a life cycle.
 *
 *     create -> start -> (stop -> save | load, apply | reset -> start)* -> destroy
 *
 * stop returns when the device has no work in flight and will begin none: block requests are
 * completed and their used entries written, packets settled. start goes on and looks at every
 * queue, because a notification may have come while it stood. save, load, apply and reset are
 * called only while stopped (reset also while the guest itself asks for it).
 * Thread: loop, with the vCPUs standing still, except create/destroy (loop).
 */
#ifndef VMM_DEVICES_DEVICE_H
#define VMM_DEVICES_DEVICE_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "base/err.h"
#include "base/lock.h"

struct event_loop;
struct guest_memory;
struct interrupts;
struct io_bus;
struct device;

/* What the machine gives each device; outlives it. */
struct device_host {
    struct event_loop *loop;
    struct guest_memory *memory;
    struct interrupts *interrupts;
    struct io_bus *ports;
    struct io_bus *mmio;
    struct lock *lock; /* LOCK_DEVICES: held around every register access by a vCPU */
    /* The guest asks: called with the device lock held; they only note the wish for the loop. */
    void (*request_reset)(void *machine);
    void (*request_power_off)(void *machine);
    void *machine;
};

struct device_ops {
    const char *section; /* names its state: "virtio-blk" */
    uint32_t version;    /* of the state message as written */
    const ProtobufCMessageDescriptor *state_type;
    /* Allocates the message; the caller frees it with protobuf_c_message_free_unpacked. */
    struct err *(*save)(struct device *device, ProtobufCMessage **out_state);
    /* Checks ranges and relations of a received message against this device; changes nothing. */
    struct err *(*validate)(struct device *device, uint32_t version, const ProtobufCMessage *state);
    /* Only after every section of the machine was validated. */
    struct err *(*apply)(struct device *device, const ProtobufCMessage *state);
    void (*reset)(struct device *device);
    struct err *(*start)(struct device *device);
    void (*stop)(struct device *device);
    void (*destroy)(struct device *device);
};

struct device {
    const struct device_ops *ops;
    struct device_host *host;
    uint32_t instance; /* numbers devices of one section name */
};

#endif
