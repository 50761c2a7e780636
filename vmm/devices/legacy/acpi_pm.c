/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi_pm.c - PM1 status, enable and control, and the interrupt that they share.
 *
 * The SCI is level triggered: it stays high while an enabled status bit is set.
 */
#include "vmm/devices/legacy/acpi_pm.h"

#include <assert.h>
#include <stdlib.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "proto/device_state.pb-c.h"
#include "vmm/bus/interrupts.h"
#include "vmm/bus/io_bus.h"
#include "vmm/bus/platform_map.h"
#include "vmm/devices/state_message.h"

#define REGISTER_BYTES 6u

/* Offsets of bytes from PORT_ACPI_PM1_EVENT. */
enum { BYTE_STATUS = 0, BYTE_ENABLE = 2, BYTE_CONTROL = 4 };
static_assert(PORT_ACPI_PM1_CONTROL == PORT_ACPI_PM1_EVENT + BYTE_CONTROL, "one range");

#define PM1_POWER_BUTTON 0x0100u
#define PM1_ENABLE_MASK  0x0721u /* timer, global, power button, sleep button, RTC */

#define CONTROL_SCI_ENABLED      0x0001u /* always: there is no legacy mode */
#define CONTROL_SLEEP_TYPE_SHIFT 10
#define CONTROL_SLEEP_TYPE_MASK  0x7u
#define CONTROL_SLEEP_ENABLE     0x2000u
#define CONTROL_KEPT             0x1c02u /* bus master reload, sleep type */

struct acpi_pm {
    struct device base;
    struct io_range *range; /* owned by the bus */
    uint16_t status;
    uint16_t enable;
    uint16_t control;
};

static struct acpi_pm *pm_of(struct device *device)
{
    return CONTAINER_OF(device, struct acpi_pm, base);
}

static void update_line(struct acpi_pm *pm)
{
    interrupts_set_line(pm->base.host->interrupts, IRQ_ACPI_SCI, (pm->status & pm->enable) != 0);
}

static void registers_read(void *context, uint64_t offset, uint8_t *out_data, size_t len)
{
    const struct acpi_pm *pm = context;
    uint16_t control = pm->control | CONTROL_SCI_ENABLED;
    const uint8_t bytes[REGISTER_BYTES] = {
        (uint8_t)pm->status,        (uint8_t)(pm->status >> 8), (uint8_t)pm->enable,
        (uint8_t)(pm->enable >> 8), (uint8_t)control,           (uint8_t)(control >> 8),
    };

    for (size_t i = 0; i < len; i++)
        out_data[i] = bytes[offset + i];
}

static void control_write(struct acpi_pm *pm, uint16_t value)
{
    struct device_host *host = pm->base.host;

    pm->control = value & CONTROL_KEPT;
    if ((value & CONTROL_SLEEP_ENABLE) != 0 &&
        (value >> CONTROL_SLEEP_TYPE_SHIFT & CONTROL_SLEEP_TYPE_MASK) == ACPI_PM_SLEEP_TYPE_S5)
        host->request_power_off(host->machine);
}

/* One byte of a register, as if the register's other byte had been written with what it holds;
 * status bits are cleared by ones. */
static void byte_write(struct acpi_pm *pm, uint64_t offset, uint8_t value)
{
    unsigned shift = offset % 2 == 0 ? 0 : 8;
    uint16_t bits = (uint16_t)(value << shift);
    uint16_t mask = (uint16_t)(0xff << shift);

    switch (offset & ~(uint64_t)1) {
    case BYTE_STATUS: pm->status &= (uint16_t)~bits; break;
    case BYTE_ENABLE: pm->enable = ((pm->enable & (uint16_t)~mask) | bits) & PM1_ENABLE_MASK; break;
    default: control_write(pm, (pm->control & (uint16_t)~mask) | bits); break;
    }
}

static void registers_write(void *context, uint64_t offset, const uint8_t *data, size_t len)
{
    struct acpi_pm *pm = context;

    for (size_t i = 0; i < len; i++)
        byte_write(pm, offset + i, data[i]);
    update_line(pm);
}

bool acpi_pm_power_button(struct device *device)
{
    struct acpi_pm *pm = pm_of(device);

    pm->status |= PM1_POWER_BUTTON;
    update_line(pm);
    return (pm->enable & PM1_POWER_BUTTON) != 0;
}

static struct err *pm_save(struct device *device, ProtobufCMessage **out_state)
{
    const struct acpi_pm *pm = pm_of(device);
    Ferry__AcpiPmState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__acpi_pm_state__descriptor, &state));

    state->status = pm->status;
    state->enable = pm->enable;
    state->control = pm->control;
    *out_state = &state->base;
    return NULL;
}

static struct err *pm_validate(struct device *device, uint32_t version,
                               const ProtobufCMessage *message)
{
    const Ferry__AcpiPmState *state = STATE_MESSAGE(Ferry__AcpiPmState, message);

    (void)device;
    (void)version;
    TRY(state_check_bits("status", state->status, PM1_POWER_BUTTON));
    TRY(state_check_bits("enable", state->enable, PM1_ENABLE_MASK));
    return state_check_bits("control", state->control, CONTROL_KEPT);
}

static struct err *pm_apply(struct device *device, const ProtobufCMessage *message)
{
    struct acpi_pm *pm = pm_of(device);
    const Ferry__AcpiPmState *state = STATE_MESSAGE(Ferry__AcpiPmState, message);

    pm->status = (uint16_t)state->status;
    pm->enable = (uint16_t)state->enable;
    pm->control = (uint16_t)state->control;
    return NULL;
}

static void pm_reset(struct device *device)
{
    struct acpi_pm *pm = pm_of(device);

    pm->status = 0;
    pm->enable = 0;
    pm->control = 0;
    update_line(pm);
}

static struct err *pm_start(struct device *device)
{
    update_line(pm_of(device));
    return NULL;
}

static void pm_stop(struct device *device)
{
    (void)device; /* nothing is ever in flight */
}

static void pm_destroy(struct device *device)
{
    struct acpi_pm *pm = pm_of(device);

    io_bus_remove(device->host->ports, pm->range);
    free(pm);
}

static const struct io_range_ops registers_ops = {
    .name = "ACPI power management",
    .read = registers_read,
    .write = registers_write,
};

static const struct device_ops acpi_pm_ops = {
    .section = "acpi-pm",
    .version = 1,
    .state_type = &ferry__acpi_pm_state__descriptor,
    .save = pm_save,
    .validate = pm_validate,
    .apply = pm_apply,
    .reset = pm_reset,
    .start = pm_start,
    .stop = pm_stop,
    .destroy = pm_destroy,
};

struct err *acpi_pm_create(struct device_host *host, struct device **out_device)
{
    CLEANUP(cleanup_free) struct acpi_pm *pm = calloc(1, sizeof(*pm));
    if (pm == NULL)
        return err_new(ERR_NO_MEMORY, "ACPI power management");

    pm->base = (struct device){.ops = &acpi_pm_ops, .host = host};
    TRY(io_bus_add(host->ports, PORT_ACPI_PM1_EVENT, REGISTER_BYTES, &registers_ops, pm,
                   &pm->range));
    *out_device = &TAKE_PTR(pm)->base;
    return NULL;
}
