/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_disks.c - a machine's disks: opened late, flushed in a pause, frozen, handed over.
 * Tested by: tests/system.
 */
#include "base/log.h"
#include "storage/disk_image.h"
#include "vmm/machine/machine_internal.h"

static struct err *open_disk(struct machine_disk *disk)
{
    const Ferry__DiskConfig *config = disk->config;

    return err_wrap(disk_image_open(config->path, config->format,
                                    config->read_only ? DISK_IMAGE_READ_ONLY : DISK_IMAGE_WRITABLE,
                                    &disk->block),
                    "disk '%s'", config->id);
}

struct err *machine_disks_open(struct machine *machine)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        if (machine->disks[i].block == NULL)
            TRY(open_disk(&machine->disks[i]));
    }
    return NULL;
}

struct err *machine_disks_flush(struct machine *machine)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        if (disk->block != NULL && !disk->config->read_only && !disk->is_handed_over)
            TRY(err_wrap(block_flush(disk->block), "disk '%s'", disk->config->id));
    }
    return NULL;
}

void machine_disks_close(struct machine *machine)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        if (disk->block == NULL)
            continue;
        struct err *err = block_close(disk->block);
        disk->block = NULL;
        if (err != NULL)
            log_err(LOG_ERROR, "disk not closed cleanly", err);
    }
}
