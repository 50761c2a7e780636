/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_bus.c - address ranges in a sorted array, found by halving.
 *
 * An access that is not wholly inside one range is taken apart into bytes, so that no handler
 * ever sees an offset outside its range.
 */
#include "vmm/bus/io_bus.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"

#define RANGES_MAX 256

struct io_range {
    uint64_t start;
    uint64_t len;
    const struct io_range_ops *ops;
    void *context;
};

struct io_bus {
    size_t count;
    struct io_range *ranges[RANGES_MAX]; /* owned; by rising start, none overlapping */
};

struct err *io_bus_create(struct io_bus **out_bus)
{
    struct io_bus *bus = calloc(1, sizeof(*bus));
    if (bus == NULL)
        return err_new(ERR_NO_MEMORY, "input/output bus");

    *out_bus = bus;
    return NULL;
}

void io_bus_destroy(struct io_bus *bus)
{
    if (bus == NULL)
        return;
    for (size_t i = 0; i < bus->count; i++)
        free(bus->ranges[i]);
    free(bus);
}

/* The index of the first range that starts above the address. */
static size_t upper_bound(const struct io_bus *bus, uint64_t address)
{
    size_t low = 0;
    size_t high = bus->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bus->ranges[middle]->start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct err *overlap_check(const struct io_bus *bus, size_t at, uint64_t start, uint64_t len,
                                 const char *name)
{
    const struct io_range *other = NULL;

    if (at > 0 && start - bus->ranges[at - 1]->start < bus->ranges[at - 1]->len)
        other = bus->ranges[at - 1];
    else if (at < bus->count && bus->ranges[at]->start - start < len)
        other = bus->ranges[at];
    if (other == NULL)
        return NULL;
    return err_new(ERR_STATE, "'%s' at 0x%llx overlaps '%s' at 0x%llx", name,
                   (unsigned long long)start, other->ops->name, (unsigned long long)other->start);
}

struct err *io_bus_add(struct io_bus *bus, uint64_t start, uint64_t len,
                       const struct io_range_ops *ops, void *context, struct io_range **out_range)
{
    ASSERT(ops->name != NULL && ops->read != NULL && ops->write != NULL);
    if (len == 0 || start + (len - 1) < start)
        return err_new(ERR_INVALID, "'%s' at 0x%llx: a range of 0x%llx bytes", ops->name,
                       (unsigned long long)start, (unsigned long long)len);
    if (bus->count == RANGES_MAX)
        return err_new(ERR_STATE, "'%s': the bus has %d ranges already", ops->name, RANGES_MAX);

    size_t at = upper_bound(bus, start);
    TRY(overlap_check(bus, at, start, len, ops->name));
    struct io_range *range = malloc(sizeof(*range));
    if (range == NULL)
        return err_new(ERR_NO_MEMORY, "bus range '%s'", ops->name);

    *range = (struct io_range){.start = start, .len = len, .ops = ops, .context = context};
    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof(bus->ranges[0]));
    bus->ranges[at] = range;
    bus->count++;
    *out_range = range;
    return NULL;
}

void io_bus_remove(struct io_bus *bus, struct io_range *range)
{
    if (range == NULL)
        return;
    size_t at = upper_bound(bus, range->start) - 1;
    ASSERT(at < bus->count && bus->ranges[at] == range);

    bus->count--;
    memmove(&bus->ranges[at], &bus->ranges[at + 1], (bus->count - at) * sizeof(bus->ranges[0]));
    free(range);
}

static const struct io_range *range_find(const struct io_bus *bus, uint64_t address)
{
    size_t at = upper_bound(bus, address);

    if (at == 0 || address - bus->ranges[at - 1]->start >= bus->ranges[at - 1]->len)
        return NULL;
    return bus->ranges[at - 1];
}

void io_bus_read(struct io_bus *bus, uint64_t address, uint8_t *out_data, size_t len)
{
    const struct io_range *range = range_find(bus, address);

    memset(out_data, 0xff, len);
    if (range != NULL && range_is_within(address - range->start, len, range->len)) {
        range->ops->read(range->context, address - range->start, out_data, len);
        return;
    }
    for (size_t i = 0; len > 1 && i < len; i++)
        io_bus_read(bus, address + i, &out_data[i], 1);
}

void io_bus_write(struct io_bus *bus, uint64_t address, const uint8_t *data, size_t len)
{
    const struct io_range *range = range_find(bus, address);

    if (range != NULL && range_is_within(address - range->start, len, range->len)) {
        range->ops->write(range->context, address - range->start, data, len);
        return;
    }
    for (size_t i = 0; len > 1 && i < len; i++)
        io_bus_write(bus, address + i, &data[i], 1);
}
