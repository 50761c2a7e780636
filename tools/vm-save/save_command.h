/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save_command.h - saves a running machine into a store, as vm-save is told to.
 */
#ifndef TOOLS_SAVE_COMMAND_H
#define TOOLS_SAVE_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct save_options {
    const char *store;
    uint64_t pause_ms;
    uint64_t pause_max_ms;
    uint64_t memory_mib;
    bool full;
    bool no_merge;
    bool keep_layers;
    bool json;
};

/* Prints what it did to standard output. */
ERR_RESULT save_command_run(const struct save_options *options, const char *machine);

#endif
