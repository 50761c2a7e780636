/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare_command.h - vm-disk compare. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_COMPARE_COMMAND_H
#define TOOLS_VM_DISK_COMPARE_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb compare_command;

#endif
