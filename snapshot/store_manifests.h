/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_manifests.h - every manifest in a store's folder, for whoever must miss none.
 *
 * Others are shown what is in order; here whatever can not be looked at is an error, and folders
 * that were given another name are looked into all the same. Thread: any.
 */
#ifndef SNAPSHOT_STORE_MANIFESTS_H
#define SNAPSHOT_STORE_MANIFESTS_H

#include "base/err.h"
#include "snapshot/manifest.h"

struct store_manifests_visitor {
    struct err *(*visit)(struct store_manifests_visitor *visitor,
                         const Ferry__SnapshotManifest *manifest);
};

/* ERR_NOT_FOUND: there is no such folder. The first error ends it, also one of `visit`. */
ERR_RESULT store_manifests_visit(const char *store_path, struct store_manifests_visitor *visitor);

/* Is the folder of a machine that was saved to this store what it was? ERR_STATE: it is there but
 * empty, as a file system's place is while that is not mounted. */
ERR_RESULT store_manifests_check_machine(const char *store_path, const char *machine);

#endif
