/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_command.h - programs whose first operand chooses what to do, as "vm-ctl pause NAME" does.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_PROGRAM_COMMAND_H
#define TOOLS_PROGRAM_COMMAND_H

#include <stddef.h>

#include "base/err.h"
#include "base/option_table.h"

struct program_command {
    const char *name;
    const char *arguments; /* after the command: "NAME", or "" */
    size_t operands_min, operands_max;
    struct err *(*run)(const char *const *operands, size_t operand_count);
};

/* Runs the command that the operands name. An unknown one, or a wrong number of arguments, is
 * printed and ends the process with PROGRAM_USAGE. */
ERR_RESULT program_command_run(const struct option_table *table,
                               const struct program_command *commands, size_t command_count,
                               const struct option_result *operands);

#endif
