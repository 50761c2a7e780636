/* SPDX-License-Identifier: Apache-2.0 */
/*
 * held_layers.c - see held_layers.h. Tested by: layer_prune_test.c
 *
 * Locks are shared, and whoever takes one exclusively holds no other, so the order does not matter.
 */
#include "snapshot/held_layers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file_io.h"
#include "base/limits.h"
#include "snapshot/layer_record.h"
#include "snapshot/snapshot_store.h"
#include "storage/image_folders.h"
#include "storage/image_head.h"
#include "storage/overlay_file.h"

struct held_layers {
    struct held_purpose purpose;
    char *store_path; /* owned; NULL: no store that lasts, or none that can be told from others */
    struct store_id store_id;
    struct name_list records; /* one name for each record, and its lock: */
    int *fds;                 /* owned; -1: not ours to lock */
};

/* One image of a chain, and the disk whose chain it is. */
struct link {
    const char *path;
    const struct held_disk *disk;
    bool is_first;
};

static struct err *identify(struct held_layers *held)
{
    const char *path =
        held->purpose.store == NULL ? NULL : snapshot_store_path(held->purpose.store);

    if (path == NULL)
        return NULL;
    struct err *err = held->purpose.is_saving ? store_id_make(path, &held->store_id)
                                              : store_id_read(path, &held->store_id);
    if (err != NULL || held->store_id.text[0] == '\0')
        return err;
    held->store_path = realpath(path, NULL);
    return held->store_path == NULL ? err_errno(errno, "find store '%s'", path) : NULL;
}

static bool is_refusal(const struct err *err)
{
    int reason = err_errnum(err);

    return reason == EACCES || reason == EPERM || reason == EROFS;
}

/* Does the record of this image have to be written, because images come to lie beside it? */
static bool is_own(const struct link *link)
{
    return link->is_first && !link->disk->is_read_only && link->disk->overlay_folder == NULL;
}

/* *out_fd: -1 when this record is not ours to write. */
static struct err *hold_record(struct held_layers *held, const struct link *link, int *out_fd)
{
    CLEANUP(cleanup_free) char *record = NULL;

    TRY(overlay_file_sibling(link->path, "stores", &record));
    for (size_t i = 0; i < held->records.count; i++)
        if (strcmp(held->records.names[i], record) == 0) {
            *out_fd = held->fds[i];
            return NULL;
        }
    int *fds = reallocarray(held->fds, held->records.count + 1, sizeof(*fds));
    if (fds == NULL)
        return err_new(ERR_NO_MEMORY, "hold the layers of '%s'", link->path);
    held->fds = fds;
    fds[held->records.count] = -1;
    struct err *err = layer_lock_take(link->path, LAYER_LOCK_NEED, &fds[held->records.count]);
    if (err != NULL && is_own(link) && is_refusal(err) && !held->purpose.is_saving)
        return err_wrap(err, "images can not be made beside '%s'; say with --overlay-folder where",
                        link->path);
    if (err != NULL && (is_own(link) || !is_refusal(err)))
        return err;
    err_free(err);
    *out_fd = fds[held->records.count];
    err = name_list_add(&held->records, record);
    if (err != NULL)
        cleanup_fd(out_fd);
    return err;
}

static struct err *real_folder(const char *folder, char **out_folder, struct stat *out_status)
{
    *out_folder = realpath(folder, NULL);
    if (*out_folder == NULL || stat(folder, out_status) != 0)
        return err_errno(errno, "folder '%s'", folder);
    return NULL;
}

static struct err *note_link(struct held_layers *held, const struct link *link, unsigned number,
                             int fd)
{
    CLEANUP(cleanup_free) char *own = NULL;
    CLEANUP(cleanup_free) char *top = NULL;
    CLEANUP(cleanup_free) char *newest = NULL;
    CLEANUP(cleanup_free) char *below = NULL;
    const char *overlay_folder = link->disk->overlay_folder;
    struct stat own_status, top_status;
    struct layer_need need = {.store_path = held->store_path,
                              .store_id = held->store_id,
                              .machine = held->store_path == NULL ? NULL : held->purpose.machine,
                              .number = number};

    TRY(folder_of(link->disk->path, &newest));
    TRY(folder_of(link->path, &below));
    TRY(real_folder(below, &own, &own_status));
    TRY(real_folder(overlay_folder == NULL ? newest : overlay_folder, &top, &top_status));
    if (!file_is_same(&own_status, &top_status))
        need.image_folder = top;
    need.is_sealing = link->is_first && link->disk->is_sealing && held->store_path != NULL;
    struct err *err = layer_record_note(link->path, fd, &need);
    if (err == NULL || is_own(link) || !is_refusal(err))
        return err;
    err_free(err);
    return NULL;
}

/* Only numbered images are ever removed, and those that become so: an own image is sealed, and what
 * comes after it has a number. */
static struct err *hold_link(struct held_layers *held, const struct link *link)
{
    unsigned number = 0;
    int fd = -1;

    enum overlay_file_kind kind =
        overlay_file_look(link->path, name_in_folder(link->path), &number);
    if (kind != OVERLAY_FILE_OVERLAY && !is_own(link))
        return NULL;
    TRY(hold_record(held, link, &fd));
    return fd < 0 ? NULL : note_link(held, link, number, fd);
}

/* Where the walk along a chain is. */
struct position {
    char *path; /* owned */
    int fd;     /* owned */
    char format[sizeof(((struct image_head *)NULL)->backing_format)];
};

static struct err *start(const struct held_disk *disk, struct position *position)
{
    position->path = strdup(disk->path);
    if (position->path == NULL)
        return err_new(ERR_NO_MEMORY, "hold the layers of '%s'", disk->path);
    (void)snprintf(position->format, sizeof(position->format), "%s", disk->format);
    position->fd = open(disk->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return position->fd < 0 ? err_errno(errno, "open image '%s'", disk->path) : NULL;
}

/* What a raw image holds is its guest's, and names no files. */
static struct err *descend(const struct image_folders *folders, struct position *position,
                           bool *out_is_end)
{
    struct image_head head = {.backing_name = ""};
    char *path = NULL;
    int fd = -1;

    if (strcmp(position->format, "qcow2") == 0)
        TRY(image_head_read(position->fd, position->path, &head));
    *out_is_end = head.backing_name[0] == '\0';
    if (*out_is_end)
        return NULL;
    TRY(image_folders_open(folders, position->path, head.backing_name, &fd, &path));
    (void)close(position->fd);
    free(position->path);
    position->fd = fd;
    position->path = path;
    (void)snprintf(position->format, sizeof(position->format), "%s", head.backing_format);
    return NULL;
}

/* Devices have no layers. */
static struct err *walk(struct held_layers *held, const struct held_disk *disk,
                        const struct image_folders *folders, struct position *position)
{
    struct stat status;

    TRY(start(disk, position));
    if (fstat(position->fd, &status) != 0)
        return err_errno(errno, "look at image '%s'", disk->path);
    if (!S_ISREG(status.st_mode))
        return NULL;
    for (unsigned depth = 0; depth <= DISK_BACKING_DEPTH_MAX; depth++) {
        struct link link = {.path = position->path, .disk = disk, .is_first = depth == 0};
        bool is_end = false;
        TRY(hold_link(held, &link));
        TRY(descend(folders, position, &is_end));
        if (is_end)
            return NULL;
    }
    return err_new(ERR_INVALID, "image '%s' has more than %u backing files below each other",
                   disk->path, DISK_BACKING_DEPTH_MAX);
}

static struct err *hold_chain(struct held_layers *held, const struct held_disk *disk)
{
    struct position position = {.fd = -1};
    struct image_folders *folders = NULL;

    TRY(image_folders_create(disk->path, held->purpose.folders, held->purpose.folder_count,
                             &folders));
    struct err *err = walk(held, disk, folders, &position);
    cleanup_fd(&position.fd);
    free(position.path);
    image_folders_destroy(folders);
    return err;
}

struct err *held_layers_take(struct held_purpose purpose, const struct held_disk *disks,
                             size_t count, struct held_layers **out_held)
{
    CLEANUP(cleanup_held_layers) struct held_layers *held = calloc(1, sizeof(*held));

    if (held == NULL)
        return err_new(ERR_NO_MEMORY, "hold the layers of disks");
    held->purpose = purpose;
    TRY(identify(held));
    for (size_t i = 0; i < count; i++)
        TRY(hold_chain(held, &disks[i]));
    *out_held = TAKE_PTR(held);
    return NULL;
}

void held_layers_release(struct held_layers *held)
{
    if (held == NULL)
        return;
    for (size_t i = 0; i < held->records.count; i++)
        cleanup_fd(&held->fds[i]);
    free(held->fds);
    name_list_finish(&held->records);
    free(held->store_path);
    free(held);
}
