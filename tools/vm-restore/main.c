/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-restore: brings a snapshot back as a running machine. Tested by: tests/system.
 */
#include "base/checked_math.h"
#include "tools/program.h"
#include "tools/vm-restore/restore_command.h"

static const struct option_row rows[] = {
    OPTION_TEXT("store", 's', struct restore_options, store, "FOLDER", NULL,
                "where snapshots are kept; without it, in the state folder"),
    OPTION_TEXT("name", 'n', struct restore_options, name, "NAME", NULL,
                "name of the restored machine, when not the saved one's"),
    OPTION_LIST("image-folder", 0, struct restore_options, image_folders, "FOLDER",
                "backing files of disks may lie here, too; may be repeated"),
    OPTION_TEXT("overlay-folder", 0, struct restore_options, overlay_folder, "FOLDER", NULL,
                "new images of disks go here, not beside those of the snapshot"),
    OPTION_LIST("tap", 0, struct restore_options, taps, "ID=NAME",
                "the tap interface of a network, when not the saved one's; may be repeated"),
    OPTION_FLAG("paused", 0, struct restore_options, paused, "leave the machine paused"),
    OPTION_FLAG("verify", 0, struct restore_options, verify,
                "read and check all of the snapshot first"),
    OPTION_FLAG("json", 0, struct restore_options, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-restore",
    .arguments = "SNAPSHOT",
    .summary = "Brings a snapshot (NAME for its newest, NAME/ID or a path) back to life.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

int main(int argc, char **argv)
{
    struct restore_options options;
    struct option_result operands;

    program_begin(&table, argc, argv, &options, &operands);
    return program_end(restore_command_run(&options, operands.operands[0]));
}
