/* SPDX-License-Identifier: Apache-2.0 */
/*
 * changes_command.h - vm-disk changes. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_CHANGES_COMMAND_H
#define TOOLS_VM_DISK_CHANGES_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb changes_command;

#endif
