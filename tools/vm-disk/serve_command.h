/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve_command.h - vm-disk serve. Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_SERVE_COMMAND_H
#define TOOLS_VM_DISK_SERVE_COMMAND_H

#include "tools/program_verb.h"

extern const struct program_verb serve_command;

#endif
