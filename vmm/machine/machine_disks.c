/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_disks.c - a machine's disks: opened late, flushed in a pause, frozen, handed over.
 *
 * What takes long is done by the machine's worker while the guest runs: overlays are prepared,
 * layers exchanged, data flushed. What changes which image a disk is settles the worker first.
 * Tested by: tests/system.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "storage/dirty_blocks.h"
#include "storage/disk_image.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/machine/loop_worker.h"
#include "vmm/machine/machine_internal.h"

#define OVERLAY_FORMAT "qcow2"

static struct disk_image_name name_of(const struct machine *machine,
                                      const Ferry__DiskConfig *config)
{
    const Ferry__MachineConfig *all = machine->description->config;

    return (struct disk_image_name){
        .path = config->path,
        .format = config->format,
        .access = config->read_only ? DISK_IMAGE_READ_ONLY : DISK_IMAGE_WRITABLE,
        .cache =
            strcmp(config->cache, "none") == 0 ? HOST_FILE_CACHE_NONE : HOST_FILE_CACHE_WRITEBACK,
        .folders = (const char *const *)all->image_folders,
        .folder_count = all->n_image_folders,
    };
}

/* What the guest's requests go to. */
static struct err *attach(struct machine_disk *disk)
{
    return virtio_blk_attach(disk->device,
                             disk->tracking.block != NULL ? disk->tracking.block : disk->block);
}

static struct err *open_disk(const struct machine *machine, struct machine_disk *disk)
{
    const Ferry__DiskConfig *config = disk->config;
    struct disk_image_name name = name_of(machine, config);
    int64_t modified_ns = dirty_blocks_modified_ns(config->path);

    TRY(err_wrap(disk_image_open_named(&name, &disk->block), "disk '%s'", config->id));
    struct err *err = disk_tracking_start(config, disk->block, modified_ns, &disk->tracking);
    if (err == NULL)
        err = attach(disk);
    if (err != NULL) {
        err_free(block_close(TAKE_PTR(disk->block)));
        disk_tracking_stop(&disk->tracking);
        return err_wrap(err, "disk '%s'", config->id);
    }
    return NULL;
}

struct err *machine_disks_open(struct machine *machine)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        if (machine->disks[i].block != NULL)
            continue;
        loop_worker_settle(machine->worker);
        TRY(open_disk(machine, &machine->disks[i]));
    }
    return NULL;
}

struct err *machine_open_disks(struct paused_machine *paused)
{
    return machine_disks_open(paused->machine);
}

struct err *machine_check_disks(const struct machine *machine)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        const Ferry__DiskConfig *config = machine->disks[i].config;
        struct disk_image_name name = name_of(machine, config);
        uint64_t bytes = 0;
        TRY(err_wrap(disk_image_check_named(&name, &bytes), "disk '%s'", config->id));
    }
    return NULL;
}

size_t machine_disk_problems(const struct machine *machine,
                             char out_problems[][MACHINE_PROBLEM_BYTES])
{
    size_t count = 0;

    for (size_t i = 0; i < machine->disk_count; i++) {
        virtio_blk_problem(machine->disks[i].device, out_problems[count], MACHINE_PROBLEM_BYTES);
        if (out_problems[count][0] != '\0')
            count++;
    }
    return count;
}

bool machine_retry_disks(struct machine *machine)
{
    bool is_any = false;

    for (size_t i = 0; i < machine->disk_count; i++)
        is_any |= virtio_blk_retry(machine->disks[i].device);
    return is_any;
}

struct err *machine_flush_disks(struct machine *machine)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        if (disk->block != NULL && !disk->config->read_only)
            TRY(err_wrap(block_flush(disk->block), "disk '%s'", disk->config->id));
    }
    return NULL;
}

void machine_disks_close(struct machine *machine)
{
    machine_forget_prepared_disks(machine);
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        if (disk->block == NULL)
            continue;
        err_free(virtio_blk_attach(disk->device, NULL));
        struct err *err = block_close(TAKE_PTR(disk->block));
        if (err != NULL)
            log_err(LOG_ERROR, "disk not closed cleanly", err);
        disk_tracking_stop(&disk->tracking);
    }
}

static struct err *prepare_disk(struct machine_disk *disk)
{
    const Ferry__DiskConfig *config = disk->config;
    CLEANUP(cleanup_free) char *overlay = NULL;

    TRY(disk_image_check_switch(disk->block));
    TRY(disk_image_next_overlay(config->path, &overlay));
    TRY(disk_image_create_overlay(overlay, config->path, config->format,
                                  disk->block->virtual_bytes));
    disk->overlay = TAKE_PTR(overlay);
    return disk_image_prepare(disk->block, disk->overlay);
}

static void forget_prepared(struct machine *machine)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        if (disk->overlay == NULL)
            continue;
        if (disk->block != NULL)
            disk_image_unprepare(disk->block);
        (void)unlink(disk->overlay);
        free(TAKE_PTR(disk->overlay));
    }
}

struct err *machine_prepare_disks(struct machine *machine)
{
    forget_prepared(machine);
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        if (disk->config->read_only)
            continue;
        struct err *err =
            disk->block == NULL
                ? err_new(ERR_STATE, "it has not been opened yet: the machine never ran")
                : prepare_disk(disk);
        if (err != NULL) {
            forget_prepared(machine);
            return err_wrap(err, "prepare disk '%s'", disk->config->id);
        }
    }
    return NULL;
}

void machine_forget_prepared_disks(struct machine *machine)
{
    loop_worker_settle(machine->worker);
    forget_prepared(machine);
}

static struct err *set_text(char **field, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "disk");
    if (*field != NULL && **field != '\0')
        free(*field);
    *field = copy;
    return NULL;
}

static struct err *switch_disk(struct machine_disk *disk)
{
    Ferry__DiskConfig *config = disk->config;

    if (disk->overlay == NULL)
        return err_new(ERR_STATE, "no overlay was prepared");
    TRY(disk_image_switch(&disk->block, config->path, config->format, disk->overlay));
    disk_tracking_follow(&disk->tracking, disk->overlay);
    TRY(attach(disk));
    TRY(set_text(&config->path, disk->overlay));
    free(TAKE_PTR(disk->overlay));
    return set_text(&config->format, OVERLAY_FORMAT);
}

static struct err *freeze_disk(struct machine_disk *disk, Ferry__ControlFrozenDisk *frozen)
{
    frozen->read_only = disk->config->read_only;
    frozen->virtual_bytes = disk->block == NULL ? 0 : disk->block->virtual_bytes;
    TRY(set_text(&frozen->id, disk->config->id));
    TRY(set_text(&frozen->frozen_path, disk->config->path));
    TRY(set_text(&frozen->frozen_format, disk->config->format));
    if (!disk->config->read_only)
        TRY(switch_disk(disk));
    return set_text(&frozen->active_path, disk->config->path);
}

static struct err *freeze_all(struct machine *machine, Ferry__ControlFrozenDisks *disks)
{
    disks->disks = calloc(machine->disk_count + 1, sizeof(*disks->disks));
    if (disks->disks == NULL)
        return err_new(ERR_NO_MEMORY, "disks");
    for (size_t i = 0; i < machine->disk_count; i++) {
        Ferry__ControlFrozenDisk *frozen = malloc(sizeof(*frozen));
        if (frozen == NULL)
            return err_new(ERR_NO_MEMORY, "disks");
        ferry__control_frozen_disk__init(frozen);
        disks->disks[disks->n_disks++] = frozen;
        TRY(err_wrap(freeze_disk(&machine->disks[i], frozen), "freeze disk '%s'",
                     machine->disks[i].config->id));
    }
    return NULL;
}

struct err *machine_freeze_disks(struct paused_machine *paused,
                                 Ferry__ControlFrozenDisks **out_disks)
{
    Ferry__ControlFrozenDisks *disks = malloc(sizeof(*disks));
    if (disks == NULL)
        return err_new(ERR_NO_MEMORY, "disks");
    ferry__control_frozen_disks__init(disks);

    loop_worker_settle(paused->machine->worker);
    struct err *err = freeze_all(paused->machine, disks);
    forget_prepared(paused->machine);
    if (err != NULL) {
        ferry__control_frozen_disks__free_unpacked(disks, NULL);
        return err;
    }
    *out_disks = disks;
    return NULL;
}

static struct err *find_disk(struct machine *machine, const char *id,
                             struct machine_disk **out_disk)
{
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        if (strcmp(disk->config->id, id) != 0)
            continue;
        if (disk->block == NULL)
            return err_new(ERR_STATE, "disk '%s' is not open", id);
        *out_disk = disk;
        return NULL;
    }
    return err_new(ERR_NOT_FOUND, "the machine has no disk '%.64s'", id);
}

struct err *machine_swap_layers(struct machine *machine, const char *disk_id, const char *path,
                                unsigned *out_gone)
{
    struct machine_disk *disk;

    TRY(find_disk(machine, disk_id, &disk));
    return err_wrap(disk_image_swap_layers(disk->block, path, out_gone), "disk '%s'", disk_id);
}

struct err *machine_begin_copy(struct machine *machine, const char *disk_id, const char *tracker)
{
    struct machine_disk *disk;

    TRY(find_disk(machine, disk_id, &disk));
    return disk_tracking_begin(&disk->tracking, disk->config, tracker);
}

/* A tracker's file is of one size: it begins anew, and everything counts as changed. */
static struct err *track_anew(struct machine_disk *disk, int64_t modified_ns)
{
    if (disk->tracking.block == NULL)
        return NULL;
    disk_tracking_stop(&disk->tracking);
    return disk_tracking_start(disk->config, disk->block, modified_ns, &disk->tracking);
}

static struct err *grow(struct machine_disk *disk, uint64_t bytes)
{
    int64_t modified_ns = dirty_blocks_modified_ns(disk->config->path);

    TRY(disk_image_grow(disk->block, bytes));
    struct err *err = track_anew(disk, modified_ns);
    virtio_blk_grow(disk->device,
                    disk->tracking.block != NULL ? disk->tracking.block : disk->block);
    return err == NULL ? NULL : err_wrap(err, "it has grown, and is not tracked");
}

struct err *machine_grow_disk(struct paused_machine *paused, struct machine_growth growth,
                              uint64_t *out_virtual_bytes)
{
    struct machine_disk *disk;
    uint64_t bytes = growth.bytes;

    TRY(find_disk(paused->machine, growth.disk_id, &disk));
    loop_worker_settle(paused->machine->worker);
    if (disk->overlay != NULL)
        return err_new(ERR_STATE, "disk '%s' is being saved; try again afterwards", growth.disk_id);
    if (growth.is_more && !checked_add(disk->block->virtual_bytes, bytes, &bytes))
        return err_new(ERR_INVALID, "disk '%s' can not be that large", growth.disk_id);
    TRY(err_wrap(grow(disk, bytes), "grow disk '%s'", growth.disk_id));
    *out_virtual_bytes = disk->block->virtual_bytes;
    return NULL;
}

/* The trackers' files are the other host's, too, while the disk is. */
static struct err *hand_over(struct machine_disk *disk)
{
    if (disk->block == NULL)
        return NULL;
    TRY(disk_image_hand_over(disk->block));
    struct err *err = virtio_blk_attach(disk->device, disk->block);
    disk_tracking_stop(&disk->tracking);
    return err;
}

static struct err *take_back_disk(struct machine_disk *disk)
{
    int64_t modified_ns = dirty_blocks_modified_ns(disk->config->path);

    if (disk->block == NULL)
        return NULL;
    TRY(disk_image_take_back(disk->block));
    TRY(disk_tracking_start(disk->config, disk->block, modified_ns, &disk->tracking));
    return attach(disk);
}

/* The first `count` disks. */
static struct err *take_back(struct machine *machine, size_t count)
{
    for (size_t i = 0; i < count; i++)
        TRY(err_wrap(take_back_disk(&machine->disks[i]), "take back disk '%s'",
                     machine->disks[i].config->id));
    return NULL;
}

struct err *machine_hand_over_disks(struct paused_machine *paused)
{
    struct machine *machine = paused->machine;

    loop_worker_settle(machine->worker);
    for (size_t i = 0; i < machine->disk_count; i++) {
        struct err *err = hand_over(&machine->disks[i]);
        if (err != NULL) {
            err_free(take_back(machine, i));
            return err_wrap(err, "hand over disk '%s'", machine->disks[i].config->id);
        }
    }
    return NULL;
}

struct err *machine_take_back_disks(struct paused_machine *paused)
{
    loop_worker_settle(paused->machine->worker);
    return take_back(paused->machine, paused->machine->disk_count);
}
