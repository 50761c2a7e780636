/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_command.c - see program_command.h. Tested by: vm_ctl_test.c
 */
#include "tools/program_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/program.h"

static struct err *find_command(const struct option_table *table,
                                const struct program_command *commands, size_t command_count,
                                const struct option_result *operands,
                                const struct program_command **out_command)
{
    if (operands->operand_count == 0)
        return err_new(ERR_INVALID, "no command given; see %s --help", table->program);
    const char *name = operands->operands[0];
    for (size_t i = 0; i < command_count; i++) {
        const struct program_command *command = &commands[i];
        if (strcmp(command->name, name) != 0)
            continue;
        size_t count = operands->operand_count - 1;
        if (count < command->operands_min || count > command->operands_max)
            return err_new(ERR_INVALID, "usage: %s [options] %s %s", table->program, name,
                           command->arguments);
        *out_command = command;
        return NULL;
    }
    return err_new(ERR_INVALID, "unknown command '%s'; see %s --help", name, table->program);
}

struct err *program_command_run(const struct option_table *table,
                                const struct program_command *commands, size_t command_count,
                                const struct option_result *operands)
{
    const struct program_command *command;
    struct err *err = find_command(table, commands, command_count, operands, &command);
    if (err != NULL) {
        (void)program_end(err);
        exit(PROGRAM_USAGE);
    }
    return command->run(operands->operands + 1, operands->operand_count - 1);
}
