/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resume_record.h - the durable note "it ran", which a machine writes itself just before it runs.
 *
 * Written by the process that runs, so that no crash of another comes between note and deed.
 * Thread: loop only; waits for the disk, once, while the machine stands still.
 */
#ifndef CONTROL_RESUME_RECORD_H
#define CONTROL_RESUME_RECORD_H

#include <stddef.h>

#include "base/err.h"
#include "proto/control.pb-c.h"

/* Does what the resume call asks for; nothing when it carries no record. On an error the machine
 * must not run. */
ERR_RESULT resume_record_write(const Ferry__ControlResume *resume, const int *fds, size_t fd_count);

#endif
