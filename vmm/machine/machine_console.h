/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_console.h - what the serial port's line is connected to: a terminal, a pty, a file, a
 * socket, and any number of control clients besides.
 *
 * Output never makes the guest wait: what an end does not take in time is dropped, oldest first.
 * Thread: loop, with the device lock not held, unless a function says otherwise.
 */
#ifndef VMM_MACHINE_MACHINE_CONSOLE_H
#define VMM_MACHINE_MACHINE_CONSOLE_H

#include "base/err.h"
#include "vmm/devices/legacy/serial_16550.h"

struct console;
struct device;
struct event_loop;
struct lock;

/* where: "stdio", "pty", "none", "file=PATH" or "socket=PATH". */
ERR_RESULT console_create(struct event_loop *loop, struct lock *device_lock, const char *where,
                          struct console **out_console);
/* Writes out what is left; accepts NULL. The port is gone by then. */
void console_destroy(struct console *console);

struct serial_line console_line(struct console *console);
void console_connect(struct console *console, struct device *serial);

/* One more end: *out_fd is a stream to the port, and the caller's. */
ERR_RESULT console_open_client(struct console *console, int *out_fd);

/* Where a pty or socket is found; NULL for the others. */
const char *console_path(const struct console *console);

#endif
