/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_limits.h - what the call "limit disk" does to a machine's configuration. Thread: any.
 */
#ifndef CONTROL_DISK_LIMITS_H
#define CONTROL_DISK_LIMITS_H

#include <stddef.h>

#include "base/err.h"
#include "proto/control.pb-c.h"

/* Sets the limits that the call names. ERR_NOT_FOUND for a disk that the machine does not have,
 * ERR_INVALID for limits that are none; then nothing has changed. */
ERR_RESULT disk_limits_apply(const Ferry__ControlLimitDisk *call, Ferry__MachineConfig *config,
                             size_t *out_disk);

#endif
