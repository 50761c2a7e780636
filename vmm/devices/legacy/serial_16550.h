/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial_16550.h - a 16550A serial port, the guest's console.
 *
 * The line is infinitely fast: a byte is out as soon as the guest has written it. Input waits in
 * the port's receive buffer; what does not fit stays with the caller.
 * Thread: as device.h; serial_16550_input: any, with the device lock held.
 */
#ifndef VMM_DEVICES_LEGACY_SERIAL_16550_H
#define VMM_DEVICES_LEGACY_SERIAL_16550_H

#include "vmm/devices/device.h"

/* Where the port's line ends. Both are called with the device lock held and must not block. */
struct serial_line {
    void (*output)(void *context, uint8_t byte);
    void (*input_room)(void *context); /* serial_16550_input was short and has room again */
    void *context;
};

ERR_RESULT serial_16550_create(struct device_host *host, uint32_t instance, uint16_t port,
                               uint32_t gsi, const struct serial_line *line,
                               struct device **out_device);

/* Returns how many of the bytes were taken. */
size_t serial_16550_input(struct device *device, const uint8_t *data, size_t len);

#endif
