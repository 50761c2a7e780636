/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take_manifest.h - puts together the manifest of a snapshot that was just taken. Thread: any.
 */
#ifndef SNAPSHOT_TAKE_MANIFEST_H
#define SNAPSHOT_TAKE_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/control.pb-c.h"
#include "proto/snapshot.pb-c.h"

struct take_facts {
    const char *id;
    uint64_t paused_ns; /* CLOCK_MONOTONIC, and the time of day, of the cut */
    uint64_t paused_realtime_ns;
    uint64_t index_bytes;
    uint64_t index_checksum;
    uint64_t state_bytes;
    uint64_t state_checksum;
    uint64_t pages_written;
    uint64_t pages_zero;
    uint64_t pause_us;
    uint64_t residual_pages;
    unsigned rounds;
};

/* `parent` is NULL for a full snapshot. Looks at the sealed images. free() *out_data. */
ERR_RESULT take_manifest_pack(const struct take_facts *facts,
                              Ferry__MachineDescription *description,
                              const Ferry__SnapshotManifest *parent,
                              const Ferry__ControlFrozenDisks *disks, void **out_data,
                              size_t *out_len);

#endif
