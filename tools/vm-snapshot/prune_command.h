/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prune_command.h - vm-snapshot prune: removes files of disks that nothing needs.
 */
#ifndef TOOLS_PRUNE_COMMAND_H
#define TOOLS_PRUNE_COMMAND_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/snapshot.pb-c.h"
#include "tools/vm-snapshot/snapshot_commands.h"

/* Of the disks of these images; without any, of all disks that the store's snapshots name. */
ERR_RESULT snapshot_command_prune(const struct snapshot_settings *settings,
                                  const char *const *images, size_t image_count);

struct prune_prospect {
    size_t file_count;
    uint64_t bytes;
};

/* What could be removed of the disks of a snapshot. */
ERR_RESULT prune_look_at(const Ferry__SnapshotManifest *manifest,
                         struct prune_prospect *out_prospect);

#endif
