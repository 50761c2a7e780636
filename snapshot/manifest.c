/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest.c - see manifest.h.
 */
#include "snapshot/manifest.h"

#include <string.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "control/runtime_folder.h"
#include "snapshot/snapshot_id.h"

static const char *const part_names[SNAPSHOT_PART_COUNT] = {
    [SNAPSHOT_PART_MEMORY] = "memory",
    [SNAPSHOT_PART_INDEX] = "index",
    [SNAPSHOT_PART_STATE] = "state",
};

const char *snapshot_part_name(enum snapshot_part part)
{
    return part_names[part];
}

static const Ferry__SnapshotPart *find_part(const Ferry__SnapshotManifest *manifest,
                                            enum snapshot_part part)
{
    for (size_t i = 0; i < manifest->n_parts; i++)
        if (strcmp(manifest->parts[i]->name, part_names[part]) == 0)
            return manifest->parts[i];
    return NULL;
}

const Ferry__SnapshotPart *manifest_part(const Ferry__SnapshotManifest *manifest,
                                         enum snapshot_part part)
{
    const Ferry__SnapshotPart *found = find_part(manifest, part);

    ASSERT(found != NULL);
    return found;
}

uint64_t manifest_page_count(const Ferry__SnapshotManifest *manifest)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < manifest->n_regions; i++)
        bytes += manifest->regions[i]->bytes;
    return bytes / PAGE_BYTES;
}

static struct err *check_identity(const Ferry__SnapshotManifest *manifest)
{
    if (manifest->format != SNAPSHOT_FORMAT)
        return err_new(ERR_INCOMPATIBLE,
                       "written in format %u; this version reads format %u: use the version that "
                       "wrote it",
                       manifest->format, SNAPSHOT_FORMAT);
    if (!snapshot_id_is_valid(manifest->id))
        return err_new(ERR_INVALID, "its id is malformed");
    if (manifest->parent[0] != '\0' && !snapshot_id_is_valid(manifest->parent))
        return err_new(ERR_INVALID, "its parent's id is malformed");
    return machine_name_check(manifest->machine);
}

static struct err *check_machine(const Ferry__MachineDescription *description)
{
    if (description == NULL || description->config == NULL)
        return err_new(ERR_INVALID, "it does not describe the machine");

    const Ferry__MachineConfig *config = description->config;
    if (config->vcpus == 0 || config->vcpus > MACHINE_VCPUS_MAX)
        return err_new(ERR_INVALID, "%u vCPUs are not in 1..%u", config->vcpus, MACHINE_VCPUS_MAX);
    if (config->memory_mib == 0 || config->memory_mib > MACHINE_MEMORY_MIB_MAX)
        return err_new(ERR_INVALID, "%llu MiB of memory are not in 1..%llu",
                       (unsigned long long)config->memory_mib,
                       (unsigned long long)MACHINE_MEMORY_MIB_MAX);
    if (config->n_disks > MACHINE_DISKS_MAX || config->n_nets > MACHINE_NETS_MAX)
        return err_new(ERR_INVALID, "%zu disks and %zu networks; the most are %u and %u",
                       config->n_disks, config->n_nets, MACHINE_DISKS_MAX, MACHINE_NETS_MAX);
    return NULL;
}

/* Every sum is checked: MACHINE_MEMORY_MIB_MAX bounds the total before it can wrap. */
static struct err *check_regions(const Ferry__SnapshotManifest *manifest)
{
    uint64_t memory_bytes = manifest->description->config->memory_mib * MIB;
    uint64_t at = 0;

    if (manifest->n_regions == 0 || manifest->n_regions > MACHINE_REGIONS_MAX)
        return err_new(ERR_INVALID, "%zu memory regions are not in 1..%u", manifest->n_regions,
                       MACHINE_REGIONS_MAX);
    for (size_t i = 0; i < manifest->n_regions; i++) {
        const Ferry__MemoryRegion *region = manifest->regions[i];
        if (region->bytes == 0 || region->bytes % PAGE_BYTES != 0 || region->file_offset != at ||
            !range_is_within(at, region->bytes, memory_bytes))
            return err_new(ERR_INVALID, "memory region %zu does not fit the machine's memory", i);
        at += region->bytes;
    }
    if (at != memory_bytes)
        return err_new(ERR_INVALID, "its memory regions hold %llu bytes, the machine %llu",
                       (unsigned long long)at, (unsigned long long)memory_bytes);
    return NULL;
}

static struct err *check_parts(const Ferry__SnapshotManifest *manifest)
{
    if (manifest->n_parts != SNAPSHOT_PART_COUNT)
        return err_new(ERR_INVALID, "%zu parts instead of %u", manifest->n_parts,
                       SNAPSHOT_PART_COUNT);
    for (unsigned i = 0; i < SNAPSHOT_PART_COUNT; i++)
        if (find_part(manifest, i) == NULL)
            return err_new(ERR_INVALID, "part '%s' is missing", part_names[i]);
    if (find_part(manifest, SNAPSHOT_PART_STATE)->bytes > STATE_BYTES_MAX)
        return err_new(ERR_INVALID, "part 'state' is larger than %llu bytes",
                       (unsigned long long)STATE_BYTES_MAX);
    return NULL;
}

static struct err *check_page_files(const Ferry__SnapshotManifest *manifest)
{
    size_t count = manifest->n_page_files;

    if (count == 0 || count > SNAPSHOT_CHAIN_MAX)
        return err_new(ERR_INVALID, "%zu page files are not in 1..%u", count, SNAPSHOT_CHAIN_MAX);
    for (size_t i = 0; i < count; i++) {
        const Ferry__SnapshotPageFile *file = manifest->page_files[i];
        if (!snapshot_id_is_valid(file->snapshot) || file->bytes % PAGE_BYTES != 0)
            return err_new(ERR_INVALID, "page file %zu is malformed", i);
        for (size_t other = 0; other < i; other++)
            if (strcmp(file->snapshot, manifest->page_files[other]->snapshot) == 0)
                return err_new(ERR_INVALID, "page file '%s' is listed twice", file->snapshot);
    }

    const Ferry__SnapshotPageFile *own = manifest->page_files[count - 1];
    if (strcmp(own->snapshot, manifest->id) != 0 ||
        own->bytes != find_part(manifest, SNAPSHOT_PART_MEMORY)->bytes)
        return err_new(ERR_INVALID, "its last page file is not its own");
    if ((count > 1) != (manifest->parent[0] != '\0'))
        return err_new(ERR_INVALID, "its parent and its page files contradict each other");
    return NULL;
}

static struct err *check_disk(const Ferry__SnapshotManifest *manifest, size_t index)
{
    const Ferry__SnapshotDisk *disk = manifest->disks[index];
    const Ferry__MachineConfig *config = manifest->description->config;

    if (strcmp(disk->format, "raw") != 0 && strcmp(disk->format, "qcow2") != 0)
        return err_new(ERR_INCOMPATIBLE, "disk %zu has an unknown format", index);
    if (disk->path[0] != '/' || strlen(disk->path) > PATH_BYTES_MAX)
        return err_new(ERR_INVALID, "disk %zu has no absolute path", index);
    if (disk->virtual_bytes > DISK_BYTES_MAX)
        return err_new(ERR_INVALID, "disk %zu is too large", index);
    if (disk->n_layers > DISK_BACKING_DEPTH_MAX)
        return err_new(ERR_INVALID, "disk %zu stands on too many images", index);
    for (size_t i = 0; i < disk->n_layers; i++)
        if (disk->layers[i]->path[0] != '/' || strlen(disk->layers[i]->path) > PATH_BYTES_MAX)
            return err_new(ERR_INVALID, "image %zu below disk %zu has no absolute path", i, index);
    if (strcmp(disk->id, config->disks[index]->id) != 0)
        return err_new(ERR_INVALID, "disk %zu is not the machine's", index);
    for (size_t other = 0; other < index; other++)
        if (strcmp(disk->id, manifest->disks[other]->id) == 0)
            return err_new(ERR_INVALID, "disk %zu appears twice", index);
    return NULL;
}

static struct err *check_disks(const Ferry__SnapshotManifest *manifest)
{
    if (manifest->n_disks != manifest->description->config->n_disks)
        return err_new(ERR_INVALID, "%zu disks, but the machine has %zu", manifest->n_disks,
                       manifest->description->config->n_disks);
    for (size_t i = 0; i < manifest->n_disks; i++)
        TRY(check_disk(manifest, i));
    return NULL;
}

static struct err *check_manifest(const Ferry__SnapshotManifest *manifest)
{
    TRY(check_identity(manifest));
    TRY(check_machine(manifest->description));
    TRY(check_regions(manifest));
    TRY(check_parts(manifest));
    TRY(check_page_files(manifest));
    if (manifest->counters == NULL)
        return err_new(ERR_INVALID, "its counters are missing");
    return check_disks(manifest);
}

struct err *manifest_pack(const Ferry__SnapshotManifest *manifest, void **out_data, size_t *out_len)
{
    struct err *err = check_manifest(manifest);
    if (err != NULL)
        return err_wrap(err, "write the manifest of snapshot '%s'", manifest->id);

    size_t inner_len = ferry__snapshot_manifest__get_packed_size(manifest);
    if (inner_len > SNAPSHOT_MANIFEST_BYTES_MAX)
        return err_new(ERR_INVALID, "manifest of %zu bytes; the most is %llu", inner_len,
                       (unsigned long long)SNAPSHOT_MANIFEST_BYTES_MAX);
    CLEANUP(cleanup_free) uint8_t *inner = malloc(inner_len);
    if (inner == NULL)
        return err_new(ERR_NO_MEMORY, "pack the manifest");
    (void)ferry__snapshot_manifest__pack(manifest, inner);

    Ferry__SnapshotManifestFile file = FERRY__SNAPSHOT_MANIFEST_FILE__INIT;
    file.checksum = XXH3_64bits(inner, inner_len);
    file.manifest.data = inner;
    file.manifest.len = inner_len;
    size_t len = ferry__snapshot_manifest_file__get_packed_size(&file);
    uint8_t *data = malloc(len);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "pack the manifest");
    (void)ferry__snapshot_manifest_file__pack(&file, data);
    *out_data = data;
    *out_len = len;
    return NULL;
}

static struct err *unpack(const void *data, size_t len, Ferry__SnapshotManifest **out_manifest)
{
    if (len > SNAPSHOT_MANIFEST_BYTES_MAX)
        return err_new(ERR_INVALID, "%zu bytes; the most is %llu", len,
                       (unsigned long long)SNAPSHOT_MANIFEST_BYTES_MAX);

    Ferry__SnapshotManifestFile *file = ferry__snapshot_manifest_file__unpack(NULL, len, data);
    if (file == NULL)
        return err_new(ERR_INVALID, "it is damaged");
    Ferry__SnapshotManifest *manifest = NULL;
    if (XXH3_64bits(file->manifest.data, file->manifest.len) == file->checksum)
        manifest = ferry__snapshot_manifest__unpack(NULL, file->manifest.len, file->manifest.data);
    ferry__snapshot_manifest_file__free_unpacked(file, NULL);
    if (manifest == NULL)
        return err_new(ERR_INVALID, "it is damaged: the checksum does not match");
    *out_manifest = manifest;
    return NULL;
}

struct err *manifest_parse(const char *name, const void *data, size_t len,
                           Ferry__SnapshotManifest **out_manifest)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    struct err *err = unpack(data, len, &manifest);

    if (err == NULL)
        err = check_manifest(manifest);
    if (err != NULL)
        return err_wrap(err, "read the manifest of snapshot '%s'", name);
    *out_manifest = TAKE_PTR(manifest);
    return NULL;
}

void manifest_free(Ferry__SnapshotManifest *manifest)
{
    if (manifest != NULL)
        ferry__snapshot_manifest__free_unpacked(manifest, NULL);
}
