/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_machine.h - the life of the process: create or wait for the machine, serve it, end.
 * Thread: loop only.
 */
#ifndef TOOLS_VM_RUN_RUN_MACHINE_H
#define TOOLS_VM_RUN_RUN_MACHINE_H

#include "base/err.h"

struct run_options;

/* Until the guest switches itself off, somebody says quit, or a signal ends it. */
ERR_RESULT run_machine(const struct run_options *options);

#endif
