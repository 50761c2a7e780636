/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_process.h - starts an empty machine process for a worker that will fill it.
 *
 * The process is `vm-run --incoming --control-fd 3` in a session of its own, from $FERRY_VM_RUN or
 * beside the running program; it logs to NAME.log in the runtime folder. It ends by itself when its
 * control connection closes before the machine has been resumed, so that a worker that dies leaves
 * nothing. Thread: any.
 */
#ifndef CONTROL_MACHINE_PROCESS_H
#define CONTROL_MACHINE_PROCESS_H

#include <sys/types.h>

#include "base/err.h"

struct control_client;

/* `name` is only for the log file; `program` is who calls. free() *out_log_path. */
ERR_RESULT machine_process_start(const char *name, const char *program,
                                 struct control_client **out_client, pid_t *out_pid,
                                 char **out_log_path);
/* Waits for a process whose connection was closed unfinished; kills it after five seconds. */
void machine_process_reap(pid_t pid);

#endif
