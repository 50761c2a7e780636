/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console_relay.h - this terminal as a machine's serial console.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_CTL_CONSOLE_RELAY_H
#define TOOLS_VM_CTL_CONSOLE_RELAY_H

#include "base/err.h"

/* Until Ctrl-], the end of the input, or the machine's end. The terminal is restored. */
ERR_RESULT console_relay(int console, const char *name);

#endif
