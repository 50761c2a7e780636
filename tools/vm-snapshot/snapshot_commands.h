/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_commands.h - the commands of vm-snapshot. They print to standard output.
 */
#ifndef TOOLS_SNAPSHOT_COMMANDS_H
#define TOOLS_SNAPSHOT_COMMANDS_H

#include <stdbool.h>

#include "base/err.h"
#include "base/option_table.h"

struct snapshot_settings {
    struct option_list stores; /* none: the one in the state folder; several: only to prune */
    struct option_list image_folders;
    struct option_list forget;
    bool keep_memory;
    bool dry_run, unrecorded, yes;
    bool json;
};

/* `machine` NULL: all. `snapshot` is as the user wrote it. */
ERR_RESULT snapshot_command_list(const struct snapshot_settings *settings, const char *machine);
ERR_RESULT snapshot_command_tree(const struct snapshot_settings *settings, const char *machine);
ERR_RESULT snapshot_command_show(const struct snapshot_settings *settings, const char *snapshot);
/* ERR_INVALID when something is damaged, after all of it has been told. */
ERR_RESULT snapshot_command_verify(const struct snapshot_settings *settings, const char *snapshot);
ERR_RESULT snapshot_command_delete(const struct snapshot_settings *settings, const char *snapshot);

#endif
