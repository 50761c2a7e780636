/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtc_cmos.h - the battery-backed clock: the host's wall-clock time, in UTC.
 *
 * What the guest sets is kept as a distance from the host's time, so that a machine that was
 * saved shows the right time when it comes back. Alarms and periodic interrupts never fire.
 * Thread: as device.h.
 */
#ifndef VMM_DEVICES_LEGACY_RTC_CMOS_H
#define VMM_DEVICES_LEGACY_RTC_CMOS_H

#include "vmm/devices/device.h"

ERR_RESULT rtc_cmos_create(struct device_host *host, struct device **out_device);

#endif
