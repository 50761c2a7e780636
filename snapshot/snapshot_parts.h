/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_parts.h - a snapshot's files, opened and checked as far as that costs nothing that
 * grows with the machine's memory. Thread: belongs to one.
 */
#ifndef SNAPSHOT_SNAPSHOT_PARTS_H
#define SNAPSHOT_SNAPSHOT_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "proto/machine.pb-c.h"
#include "snapshot/manifest.h"

struct page_index;
struct snapshot_store;

struct snapshot_parts {
    struct page_index *index;   /* owned */
    Ferry__MachineState *state; /* owned; every section's checksum holds */
    size_t fd_count;            /* the index, then the page files in the order of its numbers */
    int *fds;                   /* owned, each and the array */
};

/* Sizes and files exist as the manifest says; the head of the index and the whole state are
 * undamaged. Index entries and pages are verified when they are used. */
ERR_RESULT snapshot_parts_open(struct snapshot_store *store,
                               const Ferry__SnapshotManifest *manifest,
                               struct snapshot_parts **out_parts);
void snapshot_parts_close(struct snapshot_parts *parts); /* accepts NULL */

DEFINE_CLEANUP(snapshot_parts, struct snapshot_parts, snapshot_parts_close)

#endif
