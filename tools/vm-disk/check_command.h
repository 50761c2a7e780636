/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_command.h - vm-disk check. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_CHECK_COMMAND_H
#define TOOLS_VM_DISK_CHECK_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb check_command;

#endif
