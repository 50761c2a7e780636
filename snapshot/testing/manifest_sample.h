/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest_sample.h - a small manifest for tests to start from.
 */
#ifndef SNAPSHOT_TESTING_MANIFEST_SAMPLE_H
#define SNAPSHOT_TESTING_MANIFEST_SAMPLE_H

#include "proto/snapshot.pb-c.h"

#define SAMPLE_ID       "20261123T140732.000001Z-00000001"
#define SAMPLE_CHILD_ID "20261123T140733.000001Z-00000002"

/* Machine "web", 4 MiB in two regions, one disk, a full snapshot SAMPLE_ID. Free it with
 * manifest_free. */
Ferry__SnapshotManifest *manifest_sample(void);
/* Makes it SAMPLE_CHILD_ID, the child of SAMPLE_ID. */
void manifest_sample_make_child(Ferry__SnapshotManifest *manifest);
/* Replaces an owned text. */
void manifest_sample_set(char **text, const char *value);

#endif
