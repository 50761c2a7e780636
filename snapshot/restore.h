/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.h - brings a snapshot back as a running machine.
 *
 * Thread: any one; blocks. Nothing here grows with the machine's memory, which its own process
 * loads while the guest runs already.
 */
#ifndef SNAPSHOT_RESTORE_H
#define SNAPSHOT_RESTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "snapshot/manifest.h"
#include "snapshot/phase_timing.h"

struct control_client;
struct snapshot_name;
struct snapshot_store;

struct restore_settings {
    const char *name;    /* NULL: as it was saved */
    bool is_paused;      /* leave it paused */
    bool is_verified;    /* read and check everything first, which takes time */
    const char *program; /* who asks, for the machine's log */
    /* Where backing files of disks may lie, beside what the snapshot says. */
    const char *const *image_folders;
    size_t image_folder_count;
    const char *const *taps; /* ID=NAME: the tap interface of a network, when not the saved one's */
    size_t tap_count;
    const char *overlay_folder; /* where new images of disks go; NULL: beside those saved */
};

struct restore_result {
    Ferry__SnapshotManifest *manifest; /* owned; with the new name and disks in its description */
    pid_t pid;
    char *log_path; /* owned */
    struct phase_timings timings;
    uint64_t total_us;
    uint64_t
        first_run_us; /* from the start to just before the first guest instruction; 0: paused */
};

/* Checks everything that can be checked before it starts anything. On error nothing is left: no
 * process, no overlay. */
ERR_RESULT snapshot_restore(struct snapshot_store *store, const struct snapshot_name *name,
                            struct restore_settings settings, struct restore_result *out_result);
void restore_result_finish(struct restore_result *result);

/* The same through a connection to an empty machine that runs already; pid and log stay empty. */
ERR_RESULT snapshot_restore_into(struct control_client *client, struct snapshot_store *store,
                                 const struct snapshot_name *name, struct restore_settings settings,
                                 struct restore_result *out_result);

#endif
