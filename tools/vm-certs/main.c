/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-certs: certificates by which hosts know each other. Tested by: tests/system.
 */
#include "base/checked_math.h"
#include "tools/program.h"
#include "tools/program_command.h"
#include "tools/vm-certs/certs_command.h"

static const struct option_row rows[] = {
    OPTION_TEXT("folder", 'f', struct certs_options, folder, "FOLDER", NULL,
                "where the authority is kept; without it, in the configuration"),
    OPTION_TEXT("out", 'o', struct certs_options, out, "FOLDER", NULL,
                "where to put the files of the host"),
    OPTION_LIST("name", 'n', struct certs_options, names, "NAME",
                "another name or address of the host; may be repeated"),
    OPTION_NUMBER("days", 'd', struct certs_options, days, "DAYS", 1, 3650, 825,
                  "how long the certificate is valid"),
};

static const struct option_table table = {
    .program = "vm-certs",
    .arguments = "init | issue HOST",
    .summary = "Makes the authority and the host certificates that moving machines needs.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 2,
};

static const struct program_command commands[] = {
    {"init", "", 0, 0, certs_init},
    {"issue", "HOST", 1, 1, certs_issue},
};

int main(int argc, char **argv)
{
    struct option_result operands;

    program_begin(&table, argc, argv, &certs_options, &operands);
    return program_end(program_command_run(&table, commands, ARRAY_COUNT(commands), &operands));
}
