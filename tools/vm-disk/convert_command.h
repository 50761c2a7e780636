/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert_command.h - vm-disk convert. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_CONVERT_COMMAND_H
#define TOOLS_VM_DISK_CONVERT_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb convert_command;

#endif
