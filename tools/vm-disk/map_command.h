/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_command.h - vm-disk map. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_MAP_COMMAND_H
#define TOOLS_VM_DISK_MAP_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb map_command;

#endif
