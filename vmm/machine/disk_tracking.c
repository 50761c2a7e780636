/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_tracking.c - see disk_tracking.h. Tested by: tests/system/disk_changes_test.py
 */
#include "vmm/machine/disk_tracking.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "storage/dirty_blocks.h"
#include "storage/overlay_file.h"

#define NAME_MAX_BYTES 32u
#define NAME_LETTERS   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

struct err *disk_tracking_check(const Ferry__DiskConfig *config)
{
    if (config->n_trackers > BLOCK_TRACKERS_MAX)
        return err_new(ERR_INVALID, "disk '%s': %zu trackers; the most is %u", config->id,
                       config->n_trackers, BLOCK_TRACKERS_MAX);
    if (config->n_trackers > 0 && config->read_only)
        return err_new(ERR_INVALID, "disk '%s' is read-only, so there is nothing to track",
                       config->id);
    for (size_t i = 0; i < config->n_trackers; i++) {
        const char *name = config->trackers[i];
        size_t len = strlen(name);
        if (len == 0 || len > NAME_MAX_BYTES || strspn(name, NAME_LETTERS) != len)
            return err_new(ERR_INVALID,
                           "disk '%s': tracker '%.40s': 1..%u letters, digits, '-' and '_' wanted",
                           config->id, name, NAME_MAX_BYTES);
        for (size_t other = 0; other < i; other++)
            if (strcmp(config->trackers[other], name) == 0)
                return err_new(ERR_INVALID, "disk '%s': two trackers are named '%s'", config->id,
                               name);
    }
    return NULL;
}

static struct err *open_tracker(const Ferry__DiskConfig *config, const char *name,
                                const struct dirty_blocks_image *image,
                                struct dirty_blocks **out_blocks)
{
    CLEANUP(cleanup_free) char *path = NULL;
    char suffix[NAME_MAX_BYTES + sizeof(".changes")];

    (void)snprintf(suffix, sizeof(suffix), "%s.changes", name);
    TRY(overlay_file_sibling(config->path, suffix, &path));
    return dirty_blocks_open(path, image, out_blocks);
}

struct err *disk_tracking_start(const Ferry__DiskConfig *config, struct block *disk,
                                int64_t modified_ns, struct disk_tracking *out_tracking)
{
    struct dirty_blocks_image image = {
        .path = config->path, .virtual_bytes = disk->virtual_bytes, .modified_ns = modified_ns};
    struct disk_tracking tracking = {.count = 0};
    struct err *err = NULL;

    while (tracking.count < config->n_trackers && err == NULL) {
        err = open_tracker(config, config->trackers[tracking.count], &image,
                           &tracking.trackers[tracking.count]);
        if (err == NULL)
            tracking.count++;
    }
    if (err == NULL && tracking.count > 0)
        err = block_tracked_create(disk, tracking.trackers, tracking.count, &tracking.block);
    if (err != NULL) {
        disk_tracking_stop(&tracking);
        return err;
    }
    *out_tracking = tracking;
    return NULL;
}

/* Without the new name in it, the file says that everything changed: worse, but not wrong. */
void disk_tracking_follow(struct disk_tracking *tracking, const char *image_path)
{
    for (size_t i = 0; i < tracking->count; i++) {
        struct err *err = dirty_blocks_set_image(tracking->trackers[i], image_path);
        if (err != NULL)
            log_err(LOG_WARNING, "changes of a disk lost their image", err);
    }
}

void disk_tracking_stop(struct disk_tracking *tracking)
{
    if (tracking->block != NULL)
        err_free(block_close(tracking->block)); /* which does nothing to the disk */
    for (size_t i = 0; i < tracking->count; i++) {
        struct err *err = dirty_blocks_close(tracking->trackers[i]);
        if (err != NULL)
            log_err(LOG_WARNING, "changes of a disk not closed in order", err);
    }
    *tracking = (struct disk_tracking){.count = 0};
}

struct err *disk_tracking_begin(struct disk_tracking *tracking, const Ferry__DiskConfig *config,
                                const char *name)
{
    for (size_t i = 0; i < tracking->count; i++)
        if (strcmp(config->trackers[i], name) == 0)
            return dirty_blocks_begin(tracking->trackers[i]);
    return err_new(ERR_NOT_FOUND,
                   "disk '%s' has no tracker '%.40s'; start the machine with "
                   "--disk ...,track=NAME",
                   config->id, name);
}
