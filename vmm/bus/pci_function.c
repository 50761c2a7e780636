/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_function.c - configuration space and BAR of a PCI function.
 *
 * Tested by: pci_bus_test.c.
 *
 * A driver finds a BAR's size by writing ones to it; that is outside the PCI window, so a BAR that
 * is being sized answers nowhere, and comes back when its address is written again.
 */
#include "vmm/bus/pci_function.h"

#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/log.h"
#include "vmm/bus/io_bus.h"
#include "vmm/bus/pci_msix.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/state_message.h"

enum {
    CONFIG_VENDOR = 0x00,
    CONFIG_DEVICE = 0x02,
    CONFIG_COMMAND = 0x04,
    CONFIG_STATUS = 0x06,
    CONFIG_REVISION = 0x08,
    CONFIG_CLASS = 0x09,
    CONFIG_CACHE_LINE = 0x0c,
    CONFIG_BAR0 = 0x10,
    CONFIG_SUBSYSTEM_VENDOR = 0x2c,
    CONFIG_SUBSYSTEM = 0x2e,
    CONFIG_CAPABILITIES = 0x34,
    CONFIG_INTERRUPT_LINE = 0x3c,
    CONFIG_HEADER_END = 0x40,
};

#define COMMAND_MEMORY      0x0002u
#define COMMAND_WRITABLE    0x0546u /* memory, bus master, parity, SERR, INTx disable */
#define STATUS_CAPABILITIES 0x0010u

#define CAPABILITY_MSIX      0x11u
#define MSIX_BYTES           12u
#define MSIX_CONTROL_MASKED  0x4000u
#define MSIX_CONTROL_ENABLED 0x8000u

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)value);
    put16(at + 2, (uint16_t)(value >> 16));
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) | (uint32_t)get16(at + 2) << 16;
}

static void range_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    struct pci_function *function = context;
    function->ops->bar_read(function, offset, out_data, len);
}

static void range_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct pci_function *function = context;
    function->ops->bar_write(function, offset, data, len);
}

static const struct io_range_ops range_ops = {
    .name = "PCI BAR",
    .read = range_read,
    .write = range_write,
};

void pci_function_init(struct pci_function *function, const struct pci_function_ops *ops,
                       const struct pci_identity *identity, struct io_bus *mmio)
{
    *function =
        (struct pci_function){.ops = ops, .mmio = mmio, .capabilities_end = CONFIG_HEADER_END};
    uint8_t *config = function->config;
    put16(&config[CONFIG_VENDOR], identity->vendor);
    put16(&config[CONFIG_DEVICE], identity->device);
    config[CONFIG_REVISION] = identity->revision;
    config[CONFIG_CLASS] = (uint8_t)identity->class_code;
    put16(&config[CONFIG_CLASS + 1], (uint16_t)(identity->class_code >> 8));
    put16(&config[CONFIG_SUBSYSTEM_VENDOR], identity->subsystem_vendor);
    put16(&config[CONFIG_SUBSYSTEM], identity->subsystem);

    put16(&function->writable[CONFIG_COMMAND], COMMAND_WRITABLE);
    function->writable[CONFIG_CACHE_LINE] = 0xff;
    function->writable[CONFIG_INTERRUPT_LINE] = 0xff;
}

static void bar_unmap(struct pci_function *function)
{
    io_bus_remove(function->mmio, function->range);
    function->range = NULL;
    function->bar_address = 0;
}

void pci_function_finish(struct pci_function *function)
{
    if (function->mmio != NULL)
        bar_unmap(function);
}

uint8_t pci_function_add_capability(struct pci_function *function, uint8_t id, const void *body,
                                    uint8_t len)
{
    uint8_t at = function->capabilities_end;
    uint8_t *link = &function->config[CONFIG_CAPABILITIES];

    ASSERT(len >= 2 && at + len <= PCI_CONFIG_BYTES);
    while (*link != 0)
        link = &function->config[*link + 1];
    *link = at;
    function->config[CONFIG_STATUS] |= STATUS_CAPABILITIES;
    function->config[at] = id;
    memcpy(&function->config[at + 2], body, len - 2u);
    function->capabilities_end = (uint8_t)align_up((uint64_t)at + len, 4);
    return at;
}

void pci_function_add_msix(struct pci_function *function, struct pci_msix *msix,
                           uint32_t table_offset, uint32_t pending_offset)
{
    uint8_t body[MSIX_BYTES - 2];

    put16(&body[0], (uint16_t)(pci_msix_vector_count(msix) - 1));
    put32(&body[2], table_offset);
    put32(&body[6], pending_offset);
    function->msix = msix;
    function->msix_at =
        pci_function_add_capability(function, CAPABILITY_MSIX, body, sizeof(body) + 2);
    put16(&function->writable[function->msix_at + 2], MSIX_CONTROL_ENABLED | MSIX_CONTROL_MASKED);
}

void pci_function_place_bar(struct pci_function *function, uint32_t address, uint32_t bytes)
{
    ASSERT(is_power_of_two(bytes) && address % bytes == 0);
    function->bar_bytes = bytes;
    function->bar_initial = address;
    put32(&function->config[CONFIG_BAR0], address);
    put32(&function->writable[CONFIG_BAR0], ~(bytes - 1));
}

/* Where the BAR should answer, by the registers. */
static uint32_t bar_wanted(const struct pci_function *function)
{
    uint32_t address = get32(&function->config[CONFIG_BAR0]);
    bool is_enabled = (get16(&function->config[CONFIG_COMMAND]) & COMMAND_MEMORY) != 0;

    if (function->bar_bytes == 0 || !is_enabled || address < ADDRESS_PCI_WINDOW ||
        address > ADDRESS_PCI_WINDOW_END - function->bar_bytes)
        return 0;
    return address;
}

static void bar_update(struct pci_function *function)
{
    uint32_t wanted = bar_wanted(function);

    if (wanted == function->bar_address)
        return;
    bar_unmap(function);
    if (wanted != 0) {
        struct err *err = io_bus_add(function->mmio, wanted, function->bar_bytes, &range_ops,
                                     function, &function->range);
        if (err != NULL)
            log_guest("BAR not mapped", "device=%s error=\"%s\"", function->ops->name,
                      err_message(err));
        else
            function->bar_address = wanted;
        err_free(err);
    }
    function->ops->bar_moved(function);
}

static void msix_update(struct pci_function *function)
{
    uint16_t control = get16(&function->config[function->msix_at + 2]);

    if (function->msix != NULL)
        pci_msix_set_control(function->msix, (control & MSIX_CONTROL_ENABLED) != 0,
                             (control & MSIX_CONTROL_MASKED) != 0);
}

void pci_function_config_read(struct pci_function *function, uint8_t offset, uint8_t *out_data,
                              size_t len)
{
    ASSERT(offset + len <= PCI_CONFIG_BYTES);
    function->ops->before_config_read(function, offset, len);
    memcpy(out_data, &function->config[offset], len);
}

void pci_function_config_write(struct pci_function *function, uint8_t offset, const uint8_t *data,
                               size_t len)
{
    ASSERT(offset + len <= PCI_CONFIG_BYTES);
    for (size_t i = 0; i < len; i++) {
        uint8_t mask = function->writable[offset + i];
        uint8_t *byte = &function->config[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | (data[i] & mask));
    }
    bar_update(function);
    msix_update(function);
    function->ops->after_config_write(function, offset, len);
}

static void registers_set(struct pci_function *function, uint16_t command, uint32_t bar)
{
    put16(&function->config[CONFIG_COMMAND], command);
    if (function->bar_bytes != 0)
        put32(&function->config[CONFIG_BAR0], bar);
}

void pci_function_reset(struct pci_function *function)
{
    registers_set(function, 0, function->bar_initial);
    function->config[CONFIG_CACHE_LINE] = 0;
    function->config[CONFIG_INTERRUPT_LINE] = 0;
    if (function->msix != NULL) {
        put16(&function->config[function->msix_at + 2],
              (uint16_t)(pci_msix_vector_count(function->msix) - 1));
        pci_msix_reset(function->msix);
    }
    bar_update(function);
}

struct err *pci_function_save(struct pci_function *function, Ferry__PciFunctionState **out_state)
{
    Ferry__PciFunctionState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__pci_function_state__descriptor, &state));

    state->slot = function->slot;
    state->command = get16(&function->config[CONFIG_COMMAND]);
    state->bar = get32(&function->config[CONFIG_BAR0]);
    state->cache_line = function->config[CONFIG_CACHE_LINE];
    state->interrupt_line = function->config[CONFIG_INTERRUPT_LINE];
    struct err *err = NULL;
    if (function->msix != NULL)
        err = pci_msix_save(function->msix, &state->msix);
    return state_message_finish(err, &state->base, (ProtobufCMessage **)(void *)out_state);
}

struct err *pci_function_validate(const struct pci_function *function,
                                  const Ferry__PciFunctionState *state)
{
    if (state == NULL)
        return err_new(ERR_INVALID, "PCI state is missing");
    if (state->slot != function->slot)
        return err_new(ERR_INCOMPATIBLE, "PCI slot %u; this machine has it in slot %u", state->slot,
                       function->slot);
    TRY(state_check_bits("PCI command", state->command, COMMAND_WRITABLE));
    TRY(state_check_bits("PCI BAR", state->bar,
                         function->bar_bytes == 0 ? 0 : ~(function->bar_bytes - 1)));
    TRY(state_check_max("PCI cache line", state->cache_line, UINT8_MAX));
    TRY(state_check_max("PCI interrupt line", state->interrupt_line, UINT8_MAX));
    return function->msix == NULL ? NULL : pci_msix_validate(function->msix, state->msix);
}

void pci_function_apply(struct pci_function *function, const Ferry__PciFunctionState *state)
{
    registers_set(function, (uint16_t)state->command, state->bar);
    function->config[CONFIG_CACHE_LINE] = (uint8_t)state->cache_line;
    function->config[CONFIG_INTERRUPT_LINE] = (uint8_t)state->interrupt_line;
    if (function->msix != NULL) {
        uint16_t control = (uint16_t)(pci_msix_vector_count(function->msix) - 1);
        control |= state->msix->enabled ? MSIX_CONTROL_ENABLED : 0;
        control |= state->msix->masked ? MSIX_CONTROL_MASKED : 0;
        put16(&function->config[function->msix_at + 2], control);
        pci_msix_apply(function->msix, state->msix);
    }
    bar_update(function);
}
