/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_settle.h - asks what became of a machine that was handed over and whose mover is gone:
 * starts `vm-migrate --settle NAME`, which sits beside our own program, until it is stopped.
 *
 * Each start waits twice as long as the one before, from one second to one minute.
 * Thread: loop only.
 */
#ifndef VMM_MACHINE_MACHINE_SETTLE_H
#define VMM_MACHINE_MACHINE_SETTLE_H

#include "base/err.h"

struct event_loop;
struct machine_settle;

ERR_RESULT machine_settle_start(struct event_loop *loop, const char *name,
                                struct machine_settle **out_settle);
void machine_settle_stop(struct machine_settle *settle); /* accepts NULL */

#endif
