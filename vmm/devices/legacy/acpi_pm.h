/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi_pm.h - ACPI's fixed power management registers: power button and soft-off.
 *
 * There is no SMI command port and no power management timer; the FADT must announce neither.
 * Thread: as device.h; acpi_pm_power_button: any, with the device lock held.
 */
#ifndef VMM_DEVICES_LEGACY_ACPI_PM_H
#define VMM_DEVICES_LEGACY_ACPI_PM_H

#include <stdbool.h>

#include "vmm/devices/device.h"

#define ACPI_PM_SLEEP_TYPE_S5 5u /* as \_S5 in the DSDT says */

ERR_RESULT acpi_pm_create(struct device_host *host, struct device **out_device);

/* The guest sees its power button pressed. False: it has not said that it wants to know. */
bool acpi_pm_power_button(struct device *device);

#endif
