/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info_command.h - vm-disk info. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_INFO_COMMAND_H
#define TOOLS_VM_DISK_INFO_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb info_command;

#endif
