/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take_manifest.c - see take_manifest.h. Tested by: take_test.c.
 */
#include "snapshot/take_manifest.h"

#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "snapshot/manifest.h"
#include "snapshot/sealed_disk.h"

/* Messages and the arrays that point to them, on the stack of the packing function. */
struct manifest_draft {
    Ferry__SnapshotManifest manifest;
    Ferry__SnapshotCounters counters;
    Ferry__MemoryRegion regions[2];
    Ferry__MemoryRegion *region_list[2];
    Ferry__SnapshotPart parts[SNAPSHOT_PART_COUNT];
    Ferry__SnapshotPart *part_list[SNAPSHOT_PART_COUNT];
    Ferry__SnapshotPageFile own_file;
    Ferry__SnapshotPageFile *file_list[SNAPSHOT_CHAIN_MAX];
    Ferry__SnapshotDisk disks[MACHINE_DISKS_MAX];
    Ferry__SnapshotDisk *disk_list[MACHINE_DISKS_MAX];
};

/* RAM from 0 up to the PCI hole, and the rest from 4 GiB on. */
static void fill_regions(struct manifest_draft *draft, const Ferry__MachineConfig *config)
{
    uint64_t bytes = config->memory_mib * MIB;
    uint64_t low_bytes = MIN(bytes, config->memory_below_4g_mib * MIB);

    if (low_bytes == 0)
        low_bytes = bytes;
    for (size_t i = 0; i < ARRAY_COUNT(draft->regions); i++) {
        ferry__memory_region__init(&draft->regions[i]);
        draft->region_list[i] = &draft->regions[i];
    }
    draft->regions[0].bytes = low_bytes;
    draft->regions[1].guest_address = 4 * GIB;
    draft->regions[1].file_offset = low_bytes;
    draft->regions[1].bytes = bytes - low_bytes;
    draft->manifest.regions = draft->region_list;
    draft->manifest.n_regions = bytes == low_bytes ? 1 : 2;
}

static void fill_parts(struct manifest_draft *draft, const struct take_facts *facts)
{
    for (unsigned i = 0; i < SNAPSHOT_PART_COUNT; i++) {
        ferry__snapshot_part__init(&draft->parts[i]);
        draft->parts[i].name = (char *)snapshot_part_name(i);
        draft->part_list[i] = &draft->parts[i];
    }
    draft->parts[SNAPSHOT_PART_MEMORY].bytes = facts->pages_written * PAGE_BYTES;
    draft->parts[SNAPSHOT_PART_INDEX].bytes = facts->index_bytes;
    draft->parts[SNAPSHOT_PART_INDEX].checksum = facts->index_checksum;
    draft->parts[SNAPSHOT_PART_STATE].bytes = facts->state_bytes;
    draft->parts[SNAPSHOT_PART_STATE].checksum = facts->state_checksum;
    draft->manifest.parts = draft->part_list;
    draft->manifest.n_parts = SNAPSHOT_PART_COUNT;
}

static void fill_page_files(struct manifest_draft *draft, const struct take_facts *facts,
                            const Ferry__SnapshotManifest *parent)
{
    size_t inherited = parent == NULL ? 0 : parent->n_page_files;

    for (size_t i = 0; i < inherited; i++)
        draft->file_list[i] = parent->page_files[i];
    ferry__snapshot_page_file__init(&draft->own_file);
    draft->own_file.snapshot = (char *)facts->id;
    draft->own_file.bytes = facts->pages_written * PAGE_BYTES;
    draft->file_list[inherited] = &draft->own_file;
    draft->manifest.page_files = draft->file_list;
    draft->manifest.n_page_files = inherited + 1;
}

static const Ferry__ControlFrozenDisk *find_frozen(const Ferry__ControlFrozenDisks *disks,
                                                   const char *id)
{
    for (size_t i = 0; i < disks->n_disks; i++)
        if (strcmp(disks->disks[i]->id, id) == 0)
            return disks->disks[i];
    return NULL;
}

static struct err *fill_disks(struct manifest_draft *draft, const Ferry__MachineConfig *config,
                              const Ferry__ControlFrozenDisks *disks)
{
    if (config->n_disks > MACHINE_DISKS_MAX)
        return err_new(ERR_INVALID, "the machine names %zu disks; the most are %u", config->n_disks,
                       MACHINE_DISKS_MAX);
    draft->manifest.disks = draft->disk_list;
    for (size_t i = 0; i < config->n_disks; i++) {
        const Ferry__ControlFrozenDisk *frozen = find_frozen(disks, config->disks[i]->id);
        if (frozen == NULL)
            return err_new(ERR_INVALID, "the machine did not freeze disk '%s'",
                           config->disks[i]->id);
        Ferry__SnapshotDisk *disk = &draft->disks[i];
        ferry__snapshot_disk__init(disk);
        disk->id = frozen->id;
        disk->path = frozen->frozen_path;
        disk->format = frozen->frozen_format;
        disk->virtual_bytes = frozen->virtual_bytes;
        disk->read_only = frozen->read_only;
        draft->disk_list[draft->manifest.n_disks++] = disk;
        TRY(sealed_disk_look(
            disk, (struct sealed_disk_folders){(const char *const *)config->image_folders,
                                               config->n_image_folders}));
    }
    return NULL;
}

static void fill_counters(struct manifest_draft *draft, const struct take_facts *facts)
{
    Ferry__SnapshotCounters *counters = &draft->counters;

    ferry__snapshot_counters__init(counters);
    counters->pages = manifest_page_count(&draft->manifest);
    counters->pages_written = facts->pages_written;
    counters->pages_zero = facts->pages_zero;
    counters->pause_us = facts->pause_us;
    counters->residual_pages = facts->residual_pages;
    counters->rounds = facts->rounds;
    for (size_t i = 0; i < SNAPSHOT_PART_COUNT; i++)
        counters->bytes += draft->parts[i].bytes;
    draft->manifest.counters = counters;
}

struct err *take_manifest_pack(const struct take_facts *facts,
                               Ferry__MachineDescription *description,
                               const Ferry__SnapshotManifest *parent,
                               const Ferry__ControlFrozenDisks *disks, void **out_data,
                               size_t *out_len)
{
    struct manifest_draft draft;

    ferry__snapshot_manifest__init(&draft.manifest);
    draft.manifest.format = SNAPSHOT_FORMAT;
    draft.manifest.id = (char *)facts->id;
    draft.manifest.parent = parent == NULL ? (char *)"" : parent->id;
    draft.manifest.machine = description->config->name;
    draft.manifest.description = description;
    draft.manifest.created_realtime_ns = facts->paused_realtime_ns;
    draft.manifest.created_monotonic_ns = facts->paused_ns;
    fill_regions(&draft, description->config);
    fill_parts(&draft, facts);
    fill_page_files(&draft, facts, parent);
    struct err *err = fill_disks(&draft, description->config, disks);
    if (err == NULL) {
        fill_counters(&draft, facts);
        err = manifest_pack(&draft.manifest, out_data, out_len);
    }
    for (size_t i = 0; i < draft.manifest.n_disks; i++)
        sealed_disk_drop_layers(&draft.disks[i]);
    return err;
}
