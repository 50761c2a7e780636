/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_command.h - brings a snapshot back, as vm-restore is told to.
 */
#ifndef TOOLS_RESTORE_COMMAND_H
#define TOOLS_RESTORE_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/option_table.h"

struct restore_options {
    const char *store;
    const char *name;
    struct option_list image_folders;
    const char *overlay_folder;
    struct option_list taps;
    bool paused;
    bool verify;
    bool json;
};

/* Prints what it did to standard output. */
ERR_RESULT restore_command_run(const struct restore_options *options, const char *snapshot);

#endif
