/* SPDX-License-Identifier: Apache-2.0 */
/*
 * saved_disk.c - see saved_disk.h. Tested by: layer_prune_test.c, which uses it.
 */
#include "snapshot/testing/saved_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "snapshot/held_layers.h"
#include "snapshot/sealed_disk.h"
#include "snapshot/snapshot_store.h"
#include "snapshot/store_directory.h"
#include "snapshot/testing/manifest_sample.h"
#include "storage/disk_image.h"
#include "storage/layer_merge.h"

#define STEP_BYTES ((uint64_t)4096)

static const char *format_of(const char *image)
{
    return strstr(image, ".img") != NULL ? "raw" : "qcow2";
}

struct err *saved_disk_start(struct saved_disk *disk)
{
    char images[80];

    memset(disk, 0, sizeof(*disk));
    (void)snprintf(disk->folder, sizeof(disk->folder), "/tmp/ferry-prune-XXXXXX");
    if (mkdtemp(disk->folder) == NULL)
        return err_errno(errno, "create a folder");
    (void)snprintf(images, sizeof(images), "%s/images", disk->folder);
    (void)snprintf(disk->image, sizeof(disk->image), "%s/web.img", images);
    if (mkdir(images, 0755) != 0)
        return err_errno(errno, "create '%s'", images);
    CLEANUP(cleanup_fd) int fd = open(disk->image, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, SAVED_DISK_BYTES) != 0)
        return err_errno(errno, "create '%s'", disk->image);
    disk->path = strdup(disk->image);
    return disk_image_open(disk->image, "raw", DISK_IMAGE_WRITABLE, &disk->block);
}

void saved_disk_stop(struct saved_disk *disk)
{
    char command[128];

    if (disk->block != NULL)
        err_free(block_close(TAKE_PTR(disk->block)));
    free(TAKE_PTR(disk->path));
    for (unsigned i = 0; i < disk->count; i++)
        free(TAKE_PTR(disk->snapshots[i].content));
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", disk->folder);
    if (system(command) != 0)
        disk->folder[0] = '\0';
}

const char *saved_disk_at(const struct saved_disk *disk, const char *name)
{
    static char paths[16][128];
    static unsigned next;
    char *text = paths[next++ % 16];

    (void)snprintf(text, sizeof(paths[0]), "%s/%s", disk->folder, name);
    return text;
}

struct err *saved_disk_change(struct saved_disk *disk)
{
    static uint8_t data[16 * 4096];

    for (int i = 0; i < 3; i++) {
        uint64_t offset = (uint64_t)rand() % (SAVED_DISK_BYTES / STEP_BYTES) * STEP_BYTES;
        size_t len =
            (size_t)MIN(STEP_BYTES * (1 + (uint64_t)rand() % 16), SAVED_DISK_BYTES - offset);
        struct iovec iov = {data, len};
        memset(data, rand(), len);
        TRY(block_write(disk->block, &iov, 1, offset));
        memcpy(disk->content + offset, data, len);
    }
    return NULL;
}

static struct err *publish(struct snapshot_store *store, const struct saved_disk_snapshot *snapshot)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = manifest_sample();
    CLEANUP(cleanup_free) void *data = NULL;
    struct snapshot_draft *draft = NULL;
    size_t len = 0;

    manifest_sample_set(&manifest->id, snapshot->id);
    manifest_sample_set(&manifest->page_files[0]->snapshot, snapshot->id);
    manifest_sample_set(&manifest->disks[0]->path, snapshot->path);
    manifest_sample_set(&manifest->disks[0]->format, format_of(snapshot->path));
    manifest->disks[0]->virtual_bytes = SAVED_DISK_BYTES;
    TRY(sealed_disk_look(manifest->disks[0], (struct sealed_disk_folders){0}));
    TRY(manifest_pack(manifest, &data, &len));
    TRY(store_begin(store, "web", snapshot->id, &draft));
    struct err *err = draft_publish(draft, data, len, NULL);
    draft_close(draft);
    return err;
}

static struct err *open_store(const struct saved_disk *disk, const char *name,
                              struct snapshot_store **out_store)
{
    char path[96];

    (void)snprintf(path, sizeof(path), "%s/%s", disk->folder, name);
    return store_directory_open(path, out_store);
}

static struct err *begin_snapshot(struct saved_disk *disk, const char *store)
{
    struct saved_disk_snapshot *snapshot = &disk->snapshots[disk->count];

    if (disk->count == SAVED_DISK_SNAPSHOTS_MAX)
        return err_new(ERR_INVALID, "too many snapshots");
    (void)snprintf(snapshot->id, sizeof(snapshot->id), "20261123T140732.%06uZ-00000001",
                   disk->count);
    (void)snprintf(snapshot->store, sizeof(snapshot->store), "%s", store);
    (void)snprintf(snapshot->path, sizeof(snapshot->path), "%s", disk->path);
    snapshot->content = malloc(SAVED_DISK_BYTES);
    if (snapshot->content == NULL)
        return err_new(ERR_NO_MEMORY, "keep what the disk is");
    memcpy(snapshot->content, disk->content, SAVED_DISK_BYTES);
    disk->count++;
    return NULL;
}

static struct err *switch_disk(struct saved_disk *disk)
{
    CLEANUP(cleanup_free) char *overlay = NULL;
    const char *format = format_of(disk->path);

    TRY(disk_image_next_overlay(disk->path, &overlay));
    TRY(disk_image_create_overlay(overlay, disk->path, format, SAVED_DISK_BYTES));
    TRY(disk_image_switch(&disk->block, disk->path, format, overlay));
    free(disk->path);
    disk->path = TAKE_PTR(overlay);
    return NULL;
}

struct err *saved_disk_save(struct saved_disk *disk, const char *store_name)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    CLEANUP(cleanup_held_layers) struct held_layers *held = NULL;
    const struct held_disk sealed = {
        .path = disk->path, .format = format_of(disk->path), .is_sealing = true};
    struct held_purpose purpose = {.machine = "web", .is_saving = true};

    TRY(begin_snapshot(disk, store_name));
    TRY(open_store(disk, store_name, &store));
    purpose.store = store;
    if (strcmp(store_name, "old") != 0)
        TRY(held_layers_take(purpose, &sealed, 1, &held));
    TRY(switch_disk(disk));
    TRY(publish(store, &disk->snapshots[disk->count - 1]));
    return saved_disk_change(disk);
}

struct err *saved_disk_delete(struct saved_disk *disk, unsigned index)
{
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;
    struct saved_disk_snapshot *snapshot = &disk->snapshots[index];

    TRY(open_store(disk, snapshot->store, &store));
    TRY(store_remove(store, "web", snapshot->id, NULL));
    snapshot->store[0] = '\0';
    return NULL;
}

struct err *saved_disk_merge(struct saved_disk *disk, const char *newest, unsigned count,
                             bool is_told)
{
    struct disk_image_name layer = {.path = newest, .format = "qcow2"};
    struct layer_merge_result result;
    unsigned gone = 0;

    TRY(layer_merge(&layer, count, NULL, &result));
    return is_told ? disk_image_swap_layers(disk->block, newest, &gone) : NULL;
}

struct err *saved_disk_restore(struct saved_disk *disk, unsigned index)
{
    const struct saved_disk_snapshot *snapshot = &disk->snapshots[index];

    TRY(block_close(TAKE_PTR(disk->block)));
    free(TAKE_PTR(disk->path));
    TRY(disk_image_next_overlay(snapshot->path, &disk->path));
    TRY(disk_image_create_overlay(disk->path, snapshot->path, format_of(snapshot->path),
                                  SAVED_DISK_BYTES));
    TRY(disk_image_open(disk->path, "qcow2", DISK_IMAGE_WRITABLE, &disk->block));
    memcpy(disk->content, snapshot->content, SAVED_DISK_BYTES);
    return saved_disk_change(disk);
}

static struct err *check_snapshot(const struct saved_disk_snapshot *snapshot)
{
    static uint8_t data[SAVED_DISK_BYTES];
    struct iovec iov = {data, sizeof(data)};
    struct block *block = NULL;

    TRY(disk_image_open(snapshot->path, format_of(snapshot->path), DISK_IMAGE_READ_ONLY, &block));
    struct err *err = block_read(block, &iov, 1, 0);
    err_free(block_close(block));
    if (err == NULL && memcmp(data, snapshot->content, sizeof(data)) != 0)
        err = err_new(ERR_INVALID, "snapshot '%s' shows something else", snapshot->id);
    return err;
}

struct err *saved_disk_check(const struct saved_disk *disk)
{
    for (unsigned i = 0; i < disk->count; i++)
        if (disk->snapshots[i].store[0] != '\0')
            TRY(check_snapshot(&disk->snapshots[i]));
    return NULL;
}
