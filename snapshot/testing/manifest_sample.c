/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest_sample.c - see manifest_sample.h. Tested by: manifest_test.c, which uses it.
 */
#include "snapshot/testing/manifest_sample.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "snapshot/manifest.h"

static void *must(void *memory)
{
    ASSERT(memory != NULL);
    return memory;
}

void manifest_sample_set(char **text, const char *value)
{
    if (*text != protobuf_c_empty_string)
        free(*text);
    *text = must(strdup(value));
}

static Ferry__MemoryRegion *region(uint64_t address, uint64_t bytes, uint64_t file_offset)
{
    Ferry__MemoryRegion *region = must(malloc(sizeof(*region)));

    ferry__memory_region__init(region);
    region->guest_address = address;
    region->bytes = bytes;
    region->file_offset = file_offset;
    return region;
}

static Ferry__SnapshotPart *part(const char *name, uint64_t bytes)
{
    Ferry__SnapshotPart *part = must(malloc(sizeof(*part)));

    ferry__snapshot_part__init(part);
    manifest_sample_set(&part->name, name);
    part->bytes = bytes;
    return part;
}

static Ferry__SnapshotPageFile *page_file(const char *snapshot, uint64_t bytes)
{
    Ferry__SnapshotPageFile *file = must(malloc(sizeof(*file)));

    ferry__snapshot_page_file__init(file);
    manifest_sample_set(&file->snapshot, snapshot);
    file->bytes = bytes;
    return file;
}

static Ferry__MachineDescription *description(void)
{
    Ferry__MachineDescription *machine = must(malloc(sizeof(*machine)));
    Ferry__MachineConfig *config = must(malloc(sizeof(*config)));
    Ferry__DiskConfig *disk = must(malloc(sizeof(*disk)));

    ferry__machine_description__init(machine);
    ferry__machine_config__init(config);
    ferry__disk_config__init(disk);
    machine->config = config;
    manifest_sample_set(&config->name, "web");
    config->memory_mib = 4;
    config->memory_below_4g_mib = 3;
    config->vcpus = 1;
    manifest_sample_set(&disk->id, "vda");
    manifest_sample_set(&disk->path, "/images/web.000001.qcow2");
    manifest_sample_set(&disk->format, "qcow2");
    config->disks = must(calloc(1, sizeof(*config->disks)));
    config->disks[0] = disk;
    config->n_disks = 1;
    return machine;
}

static Ferry__SnapshotDisk *sealed_disk(void)
{
    Ferry__SnapshotDisk *disk = must(malloc(sizeof(*disk)));

    ferry__snapshot_disk__init(disk);
    manifest_sample_set(&disk->id, "vda");
    manifest_sample_set(&disk->path, "/images/web.qcow2");
    manifest_sample_set(&disk->format, "qcow2");
    disk->virtual_bytes = GIB;
    return disk;
}

Ferry__SnapshotManifest *manifest_sample(void)
{
    Ferry__SnapshotManifest *manifest = must(malloc(sizeof(*manifest)));
    Ferry__SnapshotCounters *counters = must(malloc(sizeof(*counters)));

    ferry__snapshot_manifest__init(manifest);
    ferry__snapshot_counters__init(counters);
    manifest->counters = counters;
    manifest->format = SNAPSHOT_FORMAT;
    manifest_sample_set(&manifest->id, SAMPLE_ID);
    manifest_sample_set(&manifest->machine, "web");
    manifest->description = description();
    manifest->n_regions = 2;
    manifest->regions = must(calloc(2, sizeof(*manifest->regions)));
    manifest->regions[0] = region(0, 3 * MIB, 0);
    manifest->regions[1] = region(4 * GIB, 1 * MIB, 3 * MIB);
    manifest->n_parts = SNAPSHOT_PART_COUNT;
    manifest->parts = must(calloc(SNAPSHOT_PART_COUNT, sizeof(*manifest->parts)));
    manifest->parts[0] = part("memory", 2 * PAGE_BYTES);
    manifest->parts[1] = part("index", 24576);
    manifest->parts[2] = part("state", 100);
    manifest->n_page_files = 1;
    manifest->page_files = must(calloc(SNAPSHOT_CHAIN_MAX + 1, sizeof(*manifest->page_files)));
    manifest->page_files[0] = page_file(SAMPLE_ID, 2 * PAGE_BYTES);
    manifest->n_disks = 1;
    manifest->disks = must(calloc(1, sizeof(*manifest->disks)));
    manifest->disks[0] = sealed_disk();
    return manifest;
}

void manifest_sample_make_child(Ferry__SnapshotManifest *manifest)
{
    manifest_sample_set(&manifest->parent, SAMPLE_ID);
    manifest_sample_set(&manifest->id, SAMPLE_CHILD_ID);
    manifest->page_files[manifest->n_page_files++] = page_file(SAMPLE_CHILD_ID, 2 * PAGE_BYTES);
}
