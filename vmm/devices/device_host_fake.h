/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_host_fake.h - a machine around one device, for unit tests: buses, interrupts, a loop.
 *
 * Thread: the test's.
 */
#ifndef VMM_DEVICES_DEVICE_HOST_FAKE_H
#define VMM_DEVICES_DEVICE_HOST_FAKE_H

#include "vmm/bus/interrupts_fake.h"
#include "vmm/devices/device.h"

struct device_host_fake {
    struct device_host host;
    struct interrupts_fake *interrupts; /* owned */
    struct lock lock;
    unsigned reset_requests;
    unsigned power_off_requests;
};

/* memory may be NULL for a device that uses none; it stays the caller's. */
void device_host_fake_init(struct device_host_fake *fake, struct guest_memory *memory);
void device_host_fake_finish(struct device_host_fake *fake);

/* Register accesses as a vCPU makes them, little endian. */
uint32_t device_host_fake_in(struct device_host_fake *fake, uint16_t port, size_t len);
void device_host_fake_out(struct device_host_fake *fake, uint16_t port, uint32_t value, size_t len);

/* Saves one device, packs and unpacks the message, validates and applies it to another. */
ERR_RESULT device_host_fake_move(struct device *from, struct device *to);

#endif
