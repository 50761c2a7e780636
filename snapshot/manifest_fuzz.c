/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest_fuzz.c - any bytes as a manifest: as a whole file, and as content with a right checksum.
 */
#include <stdlib.h>
#include <xxhash.h>

#include "snapshot/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void parse(const void *data, size_t len)
{
    Ferry__SnapshotManifest *manifest = NULL;

    struct err *err = manifest_parse("fuzz", data, len, &manifest);
    err_free(err);
    manifest_free(manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    Ferry__SnapshotManifestFile file = FERRY__SNAPSHOT_MANIFEST_FILE__INIT;

    parse(data, len);
    file.checksum = XXH3_64bits(data, len);
    file.manifest.data = (uint8_t *)(uintptr_t)data;
    file.manifest.len = len;
    uint8_t *packed = malloc(ferry__snapshot_manifest_file__get_packed_size(&file) + 1);
    if (packed != NULL)
        parse(packed, ferry__snapshot_manifest_file__pack(&file, packed));
    free(packed);
    return 0;
}
