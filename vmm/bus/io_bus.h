/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_bus.h - which device answers at a port or a memory-mapped address.
 *
 * Two buses of one type: ports (16 bits) and MMIO. Devices register ranges; vCPU threads dispatch.
 * Accesses of 1, 2, 4 or 8 bytes, little endian in `data`. An address that nobody claims reads as
 * all ones, and writes to it are dropped. Handlers run with the machine's device lock held, so a
 * device's registers need no lock of their own.
 * Thread: dispatch: vcpu. Registration: any, with the device lock held or before the start.
 */
#ifndef VMM_BUS_IO_BUS_H
#define VMM_BUS_IO_BUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct io_bus;
struct io_range; /* embedded by nobody: a registration */

struct io_range_ops {
    const char *name;
    void (*read)(void *context, uint64_t offset, uint8_t *out_data, size_t len);
    void (*write)(void *context, uint64_t offset, const uint8_t *data, size_t len);
};

ERR_RESULT io_bus_create(struct io_bus **out_bus);
void io_bus_destroy(struct io_bus *bus); /* frees its ranges; accepts NULL */

/* ERR_STATE when the range overlaps another, naming both. */
ERR_RESULT io_bus_add(struct io_bus *bus, uint64_t start, uint64_t len,
                      const struct io_range_ops *ops, void *context, struct io_range **out_range);
void io_bus_remove(struct io_bus *bus, struct io_range *range); /* accepts NULL */

void io_bus_read(struct io_bus *bus, uint64_t address, uint8_t *out_data, size_t len);
void io_bus_write(struct io_bus *bus, uint64_t address, const uint8_t *data, size_t len);

#endif
