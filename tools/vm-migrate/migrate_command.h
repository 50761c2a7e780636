/* SPDX-License-Identifier: Apache-2.0 */
/*
 * migrate_command.h - what vm-migrate does. Thread: loop only.
 */
#ifndef TOOLS_VM_MIGRATE_MIGRATE_COMMAND_H
#define TOOLS_VM_MIGRATE_MIGRATE_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct migrate_options {
    uint64_t channels;
    uint64_t downtime_ms;
    uint64_t rounds_max;
    uint64_t mib_per_second;
    const char *certs;
    bool json;
    bool cancel;
    bool settle;
};

/* target is NULL when the command line has none. */
ERR_RESULT migrate_command_run(const struct migrate_options *options, const char *name,
                               const char *target);

#endif
