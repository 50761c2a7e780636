/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take.h - saves a running machine: memory, device state and disks of one instant.
 *
 * Thread: any one; blocks for as long as it takes.
 */
#ifndef SNAPSHOT_TAKE_H
#define SNAPSHOT_TAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/control.pb-c.h"
#include "snapshot/manifest.h"
#include "snapshot/phase_timing.h"

struct control_client;
struct snapshot_store;

struct take_settings {
    uint64_t pause_us_wanted;  /* rounds go on until the pause fits this */
    uint64_t pause_us_max;     /* and when they do not converge, it may be this long */
    uint64_t staged_bytes_max; /* of memory that rounds use in the caller's process */
    bool is_full;              /* write all pages, although a parent is known */
};

#define TAKE_SETTINGS_DEFAULT                                                                      \
    (struct take_settings)                                                                         \
    {                                                                                              \
        .pause_us_wanted = 5000, .pause_us_max = 250000, .staged_bytes_max = 1024 * MIB            \
    }

struct take_result {
    Ferry__SnapshotManifest *manifest; /* owned */
    Ferry__ControlReply *disks;        /* owned; where the machine's disks go on */
    struct phase_timings timings;
    uint64_t total_us;
    bool is_tracked; /* the next snapshot can be incremental */
};

/* On error the machine runs on, what it lent is returned, and the store is as it was; only disks
 * may already have moved on to their overlays, which changes nothing for the guest. */
ERR_RESULT snapshot_take(struct control_client *client, struct snapshot_store *store,
                         struct take_settings settings, struct take_result *out_result);
void take_result_finish(struct take_result *result);

#endif
