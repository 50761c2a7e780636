/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8042.h - the keyboard controller without a keyboard: kept for the reset line that it drives.
 *
 * Thread: as device.h.
 */
#ifndef VMM_DEVICES_LEGACY_I8042_H
#define VMM_DEVICES_LEGACY_I8042_H

#include "vmm/devices/device.h"

ERR_RESULT i8042_create(struct device_host *host, struct device **out_device);

#endif
