/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layers_command.h - vm-disk layers. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_LAYERS_COMMAND_H
#define TOOLS_VM_DISK_LAYERS_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb layers_command;

#endif
