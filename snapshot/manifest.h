/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest.h - what a snapshot consists of, as its file `manifest` says.
 *
 * A parsed manifest keeps these promises: ids and the machine's name are safe as parts of paths,
 * all three parts are there, regions follow one another in the memory file and add up to the
 * machine's memory, the last page file is the snapshot's own, disks are distinct and match the
 * description's, and no count exceeds limits.h. Thread: any.
 */
#ifndef SNAPSHOT_MANIFEST_H
#define SNAPSHOT_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "proto/snapshot.pb-c.h"

#define SNAPSHOT_FORMAT 1u

enum snapshot_part { SNAPSHOT_PART_MEMORY, SNAPSHOT_PART_INDEX, SNAPSHOT_PART_STATE };
#define SNAPSHOT_PART_COUNT 3u

const char *snapshot_part_name(enum snapshot_part part); /* also the file's name */

/* The bytes of the file. free() *out_data. Refuses what would not parse. */
ERR_RESULT manifest_pack(const Ferry__SnapshotManifest *manifest, void **out_data, size_t *out_len);
/* `name` ("web/20261123T...") heads the errors. ERR_INCOMPATIBLE for a format that is not ours. */
ERR_RESULT manifest_parse(const char *name, const void *data, size_t len,
                          Ferry__SnapshotManifest **out_manifest);
void manifest_free(Ferry__SnapshotManifest *manifest); /* accepts NULL */
DEFINE_CLEANUP(manifest, Ferry__SnapshotManifest, manifest_free)

const Ferry__SnapshotPart *manifest_part(const Ferry__SnapshotManifest *manifest,
                                         enum snapshot_part part);
uint64_t manifest_page_count(const Ferry__SnapshotManifest *manifest);

#endif
