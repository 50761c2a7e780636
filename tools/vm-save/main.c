/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-save: saves a running machine. Tested by: tests/system.
 */
#include "base/checked_math.h"
#include "tools/program.h"
#include "tools/vm-save/save_command.h"

static const struct option_row rows[] = {
    OPTION_TEXT("store", 's', struct save_options, store, "FOLDER", NULL,
                "where snapshots are kept; without it, in the state folder"),
    OPTION_FLAG("full", 0, struct save_options, full,
                "save all pages, although an earlier snapshot has most of them"),
    OPTION_NUMBER("pause", 0, struct save_options, pause_ms, "MS", 1, 60000, 5,
                  "copy in rounds until the pause is as short as this"),
    OPTION_NUMBER("pause-max", 0, struct save_options, pause_max_ms, "MS", 1, 60000, 250,
                  "longest pause when the rounds do not converge; else nothing is saved"),
    OPTION_NUMBER("memory", 0, struct save_options, memory_mib, "MIB", 1, 65536, 1024,
                  "most memory to use for pages on their way to the store"),
    OPTION_FLAG("no-merge", 0, struct save_options, no_merge,
                "leave the layers of disks alone, however many there are"),
    OPTION_FLAG("keep-layers", 0, struct save_options, keep_layers,
                "remove no layers that were merged, although nothing needs them"),
    OPTION_FLAG("json", 0, struct save_options, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-save",
    .arguments = "NAME",
    .summary = "Saves memory, devices and disks of a running machine as they are at one instant.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

int main(int argc, char **argv)
{
    struct save_options options;
    struct option_result operands;

    program_begin(&table, argc, argv, &options, &operands);
    return program_end(save_command_run(&options, operands.operands[0]));
}
