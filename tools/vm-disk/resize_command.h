/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resize_command.h - vm-disk resize. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_RESIZE_COMMAND_H
#define TOOLS_VM_DISK_RESIZE_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb resize_command;

#endif
