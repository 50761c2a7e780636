/* SPDX-License-Identifier: Apache-2.0 */
/*
 * measure_command.h - vm-disk measure. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_MEASURE_COMMAND_H
#define TOOLS_VM_DISK_MEASURE_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb measure_command;

#endif
