/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_command.h - vm-disk bench. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_BENCH_COMMAND_H
#define TOOLS_VM_DISK_BENCH_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb bench_command;

#endif
