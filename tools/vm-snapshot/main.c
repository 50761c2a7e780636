/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - vm-snapshot: lists, checks and deletes what vm-save has saved, and what nothing
 * needs any more. Tested by: tests/system.
 */
#include <stdio.h>

#include "base/checked_math.h"
#include "tools/program.h"
#include "tools/program_command.h"
#include "tools/vm-snapshot/prune_command.h"
#include "tools/vm-snapshot/snapshot_commands.h"

static struct snapshot_settings settings;

static const struct option_row rows[] = {
    OPTION_LIST("store", 's', struct snapshot_settings, stores, "FOLDER",
                "where snapshots are kept; without it, in the state folder; may be repeated to "
                "prune"),
    OPTION_LIST("image-folder", 0, struct snapshot_settings, image_folders, "FOLDER",
                "to verify: backing files of disks may lie here, too; to prune: images here may "
                "stand on the disk's; may be repeated"),
    OPTION_FLAG(
        "keep-memory", 0, struct snapshot_settings, keep_memory,
        "to delete: also one that others add to; its memory stays as long as these need it"),
    OPTION_FLAG("dry-run", 'n', struct snapshot_settings, dry_run,
                "to prune: tell what would be removed"),
    OPTION_FLAG("unrecorded", 0, struct snapshot_settings, unrecorded,
                "to prune: also layers of which no record says which stores need them; every such "
                "store must be named"),
    OPTION_LIST("forget", 0, struct snapshot_settings, forget, "FOLDER",
                "to prune: a store or a folder of images that is gone for good; may be repeated"),
    OPTION_FLAG("yes", 'y', struct snapshot_settings, yes, "to prune: do not ask"),
    OPTION_FLAG("json", 0, struct snapshot_settings, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-snapshot",
    .arguments = "list|tree [NAME] | show|verify|delete SNAPSHOT | prune [IMAGE...]",
    .summary = "Lists snapshots by age or as a tree, shows, verifies (all of it) or deletes one, "
               "removes disk layers that nothing needs.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = OPTION_LIST_MAX,
};

static struct err *list(const char *const *operands, size_t operand_count)
{
    return snapshot_command_list(&settings, operand_count == 0 ? NULL : operands[0]);
}

static struct err *tree(const char *const *operands, size_t operand_count)
{
    return snapshot_command_tree(&settings, operand_count == 0 ? NULL : operands[0]);
}

static struct err *show(const char *const *operands, size_t operand_count)
{
    (void)operand_count;
    return snapshot_command_show(&settings, operands[0]);
}

static struct err *verify(const char *const *operands, size_t operand_count)
{
    (void)operand_count;
    return snapshot_command_verify(&settings, operands[0]);
}

static struct err *delete(const char *const *operands, size_t operand_count)
{
    (void)operand_count;
    return snapshot_command_delete(&settings, operands[0]);
}

static struct err *prune(const char *const *operands, size_t operand_count)
{
    return snapshot_command_prune(&settings, operands, operand_count);
}

static const struct program_command commands[] = {
    {"list", "[NAME]", 0, 1, list},       {"tree", "[NAME]", 0, 1, tree},
    {"show", "SNAPSHOT", 1, 1, show},     {"verify", "SNAPSHOT", 1, 1, verify},
    {"delete", "SNAPSHOT", 1, 1, delete}, {"prune", "[IMAGE...]", 0, OPTION_LIST_MAX - 1, prune},
};

int main(int argc, char **argv)
{
    struct option_result operands;

    program_begin(&table, argc, argv, &settings, &operands);
    return program_end(program_command_run(&table, commands, ARRAY_COUNT(commands), &operands));
}
