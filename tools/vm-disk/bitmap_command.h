/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap_command.h - vm-disk bitmap. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_BITMAP_COMMAND_H
#define TOOLS_VM_DISK_BITMAP_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb bitmap_command;

#endif
