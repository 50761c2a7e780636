/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_layers.h - keeps the chains of a saved machine's disks short.
 *
 * Each snapshot adds a layer to each disk. When there are many, some become one: this process does
 * the copying, and the machine, which runs on, opens the result in their place. Files that
 * anything may need stay (layer_prune.h). Thread: any one; blocks.
 */
#ifndef SNAPSHOT_DISK_LAYERS_H
#define SNAPSHOT_DISK_LAYERS_H

#include <stdint.h>

#include "base/err.h"
#include "proto/snapshot.pb-c.h"

struct control_client;

struct disk_layers_result {
    unsigned merged; /* layers that the chains have less */
    uint64_t copied_bytes;
    unsigned removed; /* files of layers that nothing needs since they were merged */
    uint64_t removed_bytes;
};

enum disk_layers_merged { DISK_LAYERS_KEEP_MERGED, DISK_LAYERS_REMOVE_MERGED };

/* For the disks of a snapshot that was just taken through this connection. Out of an error nothing
 * worse comes than chains that are as long as before; the result counts what was done all the same.
 */
ERR_RESULT disk_layers_shorten(struct control_client *client,
                               const Ferry__SnapshotManifest *manifest,
                               enum disk_layers_merged merged,
                               struct disk_layers_result *out_result);

#endif
