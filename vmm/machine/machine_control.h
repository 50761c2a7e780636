/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_control.h - the process's machine behind the control protocol: answers its calls, and
 * undoes what a connection held when it closes.
 *
 *     empty --configure--> incoming --resume--> running <--> paused --hand over--> handed over
 *     (boot) ---------------------------------> running         <-------take back----/
 *
 * A machine that was handed over stays so when the connection that did it closes; then
 * `vm-migrate --settle NAME` is started, again and again until it says what became of the machine.
 * Thread: loop only.
 */
#ifndef VMM_MACHINE_MACHINE_CONTROL_H
#define VMM_MACHINE_MACHINE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "proto/machine.pb-c.h"

struct event_loop;
struct machine_control;

struct machine_control_config {
    struct event_loop *loop;
    /* The process has nothing left to do: "the guest switched itself off", or why it was told. */
    void (*on_end)(void *context, const char *reason);
    void *context;
};

ERR_RESULT machine_control_create(const struct machine_control_config *config,
                                  struct machine_control **out_control);
void machine_control_destroy(struct machine_control *control); /* accepts NULL */

/* Serves a connected socket, which is owned from here on. */
ERR_RESULT machine_control_adopt(struct machine_control *control, int fd);

/* Creates the machine, opens its named control socket, boots and runs it. tap fds are consumed. */
ERR_RESULT machine_control_boot(struct machine_control *control,
                                const Ferry__MachineDescription *description, const int *tap_fds,
                                size_t tap_fd_count);

/* False: nobody listens to it. */
bool machine_control_power_button(struct machine_control *control);

#endif
