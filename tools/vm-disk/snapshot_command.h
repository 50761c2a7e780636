/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_command.h - vm-disk snapshot. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_SNAPSHOT_COMMAND_H
#define TOOLS_VM_DISK_SNAPSHOT_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb snapshot_command;

#endif
