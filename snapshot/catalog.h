/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog.h - finds snapshots in a store, and how they depend on each other. Thread: any.
 */
#ifndef SNAPSHOT_CATALOG_H
#define SNAPSHOT_CATALOG_H

#include "base/err.h"
#include "base/limits.h"
#include "snapshot/snapshot_id.h"
#include "snapshot/snapshot_store.h"

struct snapshot_name {
    char machine[MACHINE_NAME_MAX + 1];
    struct snapshot_id id;
};

/* What a user wrote: NAME (its newest), NAME/ID or NAME/START-OF-ID, or the path of a snapshot's
 * folder (with a leading '/' or '.'), whose store is then opened instead of the one at
 * store_path. */
ERR_RESULT catalog_open(const char *text, const char *store_path, struct snapshot_store **out_store,
                        struct snapshot_name *out_name);

/* The manifest, checked, and of the snapshot that was asked for. Free with manifest_free. */
ERR_RESULT catalog_load(struct snapshot_store *store, const char *machine, const char *id,
                        Ferry__SnapshotManifest **out_manifest);
/* ERR_NOT_FOUND when the machine has none. */
ERR_RESULT catalog_newest(struct snapshot_store *store, const char *machine,
                          struct snapshot_id *out_id);
/* Snapshots whose pages are partly in this one's memory part. A damaged manifest is an error,
 * because nobody knows what it refers to. */
ERR_RESULT catalog_dependents(struct snapshot_store *store, const char *machine, const char *id,
                              struct name_list *out_ids);
/* Refuses with the names of the dependents, else removes; no dependent can be published between. */
ERR_RESULT catalog_delete(struct snapshot_store *store, const char *machine, const char *id);

#endif
