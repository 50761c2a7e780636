/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create_command.h - vm-disk create. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_CREATE_COMMAND_H
#define TOOLS_VM_DISK_CREATE_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb create_command;

#endif
