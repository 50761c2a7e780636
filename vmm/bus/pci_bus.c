/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_bus.c - configuration mechanism #1 and the host bridge.
 *
 * The byte at 0xcf9, inside the address register's ports, is the reset control register.
 */
#include "vmm/bus/pci_bus.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "vmm/bus/io_bus.h"
#include "vmm/bus/pci_function.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/state_message.h"

#define SLOTS 32u

#define ADDRESS_PORTS  4u
#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_MASK   0x80fffffcu

#define RESET_CONTROL_AT 1u
#define RESET_CPU        0x04u

struct pci_bus {
    struct device base;
    struct io_range *address_range; /* owned by the bus of ports */
    struct io_range *data_range;    /* likewise */
    uint32_t address;
    uint32_t window_next; /* where the next BAR may be placed */
    struct pci_function host_bridge;
    struct pci_function *slots[SLOTS]; /* borrowed, but for the host bridge */
};

static struct pci_bus *bus_of(struct device *device)
{
    return CONTAINER_OF(device, struct pci_bus, base);
}

static void address_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    const struct pci_bus *bus = context;

    memset(out_data, 0xff, len);
    if (offset == 0 && len == sizeof(bus->address))
        memcpy(out_data, &bus->address, sizeof(bus->address));
    else if (offset == RESET_CONTROL_AT && len == 1)
        out_data[0] = 0;
}

static void address_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct pci_bus *bus = context;
    struct device_host *host = bus->base.host;

    if (offset == 0 && len == sizeof(bus->address)) {
        memcpy(&bus->address, data, sizeof(bus->address));
        bus->address &= ADDRESS_MASK;
    } else if (offset == RESET_CONTROL_AT && len == 1 && (data[0] & RESET_CPU) != 0) {
        host->request_reset(host->machine);
    }
}

/* The function that the address register selects; only bus 0 and functions 0 exist. */
static struct pci_function *selected(const struct pci_bus *bus)
{
    if ((bus->address & ADDRESS_ENABLE) == 0 || (bus->address & 0x00ff0700) != 0)
        return NULL;
    return bus->slots[bus->address >> 11 & (SLOTS - 1)];
}

static void data_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    const struct pci_bus *bus = context;
    struct pci_function *function = selected(bus);

    memset(out_data, 0xff, len);
    if (function != NULL)
        pci_function_config_read(function, (uint8_t)((bus->address & 0xfc) + offset), out_data,
                                 len);
}

static void data_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    const struct pci_bus *bus = context;
    struct pci_function *function = selected(bus);

    if (function != NULL)
        pci_function_config_write(function, (uint8_t)((bus->address & 0xfc) + offset), data, len);
}

struct err *pci_bus_add(struct pci_bus *bus, struct pci_function *function, uint32_t bar_bytes)
{
    unsigned slot = 0;
    while (slot < SLOTS && bus->slots[slot] != NULL)
        slot++;
    if (slot == SLOTS)
        return err_new(ERR_STATE, "'%s': all %u PCI slots are taken; use fewer devices",
                       function->ops->name, SLOTS);

    if (bar_bytes != 0) {
        uint64_t at = align_up(bus->window_next, bar_bytes);
        if (at + bar_bytes > ADDRESS_PCI_WINDOW_END)
            return err_new(ERR_STATE, "'%s': the PCI window is full", function->ops->name);
        pci_function_place_bar(function, (uint32_t)at, bar_bytes);
        bus->window_next = (uint32_t)(at + bar_bytes);
    }
    function->slot = (uint8_t)slot;
    bus->slots[slot] = function;
    return NULL;
}

void pci_bus_remove(struct pci_bus *bus, struct pci_function *function)
{
    if (bus->slots[function->slot] == function)
        bus->slots[function->slot] = NULL;
}

struct device *pci_bus_device(struct pci_bus *bus)
{
    return &bus->base;
}

static struct err *bus_save(struct device *device, ProtobufCMessage **out_state)
{
    struct pci_bus *bus = bus_of(device);
    Ferry__PciBusState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__pci_bus_state__descriptor, &state));

    state->address = bus->address;
    struct err *err = pci_function_save(&bus->host_bridge, &state->host_bridge);
    return state_message_finish(err, &state->base, out_state);
}

static struct err *bus_validate(struct device *device, uint32_t version,
                                const ProtobufCMessage *message)
{
    const Ferry__PciBusState *state = STATE_MESSAGE(Ferry__PciBusState, message);

    (void)version;
    TRY(state_check_bits("address", state->address, ADDRESS_MASK));
    return pci_function_validate(&bus_of(device)->host_bridge, state->host_bridge);
}

static struct err *bus_apply(struct device *device, const ProtobufCMessage *message)
{
    struct pci_bus *bus = bus_of(device);
    const Ferry__PciBusState *state = STATE_MESSAGE(Ferry__PciBusState, message);

    bus->address = state->address;
    pci_function_apply(&bus->host_bridge, state->host_bridge);
    return NULL;
}

static void bus_reset(struct device *device)
{
    struct pci_bus *bus = bus_of(device);

    bus->address = 0;
    pci_function_reset(&bus->host_bridge);
}

static struct err *bus_start(struct device *device)
{
    (void)device; /* does nothing of its own */
    return NULL;
}

static void bus_stop(struct device *device)
{
    (void)device;
}

static void bus_destroy(struct device *device)
{
    struct pci_bus *bus = bus_of(device);

    io_bus_remove(device->host->ports, bus->address_range);
    io_bus_remove(device->host->ports, bus->data_range);
    pci_function_finish(&bus->host_bridge);
    free(bus);
}

static void bridge_bar_read(struct pci_function *function, uint64_t offset, uint8_t *out_data,
                            size_t len)
{
    (void)function;
    (void)offset;
    memset(out_data, 0xff, len);
}

static void bridge_bar_write(struct pci_function *function, uint64_t offset, const uint8_t *data,
                             size_t len)
{
    (void)function;
    (void)offset;
    (void)data;
    (void)len;
}

static void bridge_bar_moved(struct pci_function *function)
{
    (void)function; /* it has none */
}

static void bridge_config_accessed(struct pci_function *function, uint8_t offset, size_t len)
{
    (void)function; /* nothing behind its header has effects */
    (void)offset;
    (void)len;
}

static const struct pci_function_ops bridge_ops = {
    .name = "PCI host bridge",
    .bar_read = bridge_bar_read,
    .bar_write = bridge_bar_write,
    .bar_moved = bridge_bar_moved,
    .before_config_read = bridge_config_accessed,
    .after_config_write = bridge_config_accessed,
};

/* Intel's virtual host bridge: the guests' quirk lists do not know it. */
static const struct pci_identity bridge_identity = {
    .vendor = 0x8086,
    .device = 0x0d57,
    .class_code = 0x060000,
};

static const struct io_range_ops address_ops = {
    .name = "PCI address",
    .read = address_read,
    .write = address_write,
};

static const struct io_range_ops data_ops = {
    .name = "PCI data",
    .read = data_read,
    .write = data_write,
};

static const struct device_ops pci_bus_ops = {
    .section = "pci-bus",
    .version = 1,
    .state_type = &ferry__pci_bus_state__descriptor,
    .save = bus_save,
    .validate = bus_validate,
    .apply = bus_apply,
    .reset = bus_reset,
    .start = bus_start,
    .stop = bus_stop,
    .destroy = bus_destroy,
};

struct err *pci_bus_create(struct device_host *host, struct pci_bus **out_bus)
{
    CLEANUP(cleanup_free) struct pci_bus *bus = calloc(1, sizeof(*bus));
    if (bus == NULL)
        return err_new(ERR_NO_MEMORY, "PCI bus");

    bus->base = (struct device){.ops = &pci_bus_ops, .host = host};
    bus->window_next = ADDRESS_PCI_WINDOW;
    pci_function_init(&bus->host_bridge, &bridge_ops, &bridge_identity, host->mmio);
    TRY(pci_bus_add(bus, &bus->host_bridge, 0));
    TRY(io_bus_add(host->ports, PORT_PCI_ADDRESS, ADDRESS_PORTS, &address_ops, bus,
                   &bus->address_range));
    struct err *err =
        io_bus_add(host->ports, PORT_PCI_DATA, ADDRESS_PORTS, &data_ops, bus, &bus->data_range);
    if (err != NULL) {
        io_bus_remove(host->ports, bus->address_range);
        return err;
    }
    *out_bus = TAKE_PTR(bus);
    return NULL;
}
