/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_directory.c - see store_directory.h.
 *
 *     STORE/MACHINE/lock           held (flock) while drafts begin, are published or swept, and
 *                                  while a snapshot is removed
 *     STORE/MACHINE/ID/lock        held by the owner of a draft for as long as it lives
 *     STORE/MACHINE/ID/memory, index, state
 *     STORE/MACHINE/ID/deleted     the snapshot is gone, but for memory that others need
 *     STORE/MACHINE/ID/manifest    its rename from manifest.new is what publishes the snapshot
 *
 * A folder without a manifest, or with `deleted`, is garbage if nobody holds its lock and no
 * snapshot has pages in it: begin and remove clear it away. Locks end with the process that holds
 * them, however it ends.
 */
#include "snapshot/store_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/checked_math.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "control/runtime_folder.h"
#include "snapshot/manifest.h"
#include "snapshot/snapshot_id.h"

#define FOLDER_MODE 0700

struct directory_store {
    struct snapshot_store base;
    char *path; /* owned */
};

struct directory_draft {
    struct snapshot_draft base;
    char *machine_path; /* owned: STORE/MACHINE */
    char *path;         /* owned: STORE/MACHINE/ID */
    int lock_fd;        /* owned */
    bool is_published;
};

static struct directory_store *store_of(struct snapshot_store *store)
{
    return CONTAINER_OF(store, struct directory_store, base);
}

static struct directory_draft *draft_of(struct snapshot_draft *draft)
{
    return CONTAINER_OF(draft, struct directory_draft, base);
}

static struct err *join(char **out_path, const char *folder, const char *name)
{
    if (asprintf(out_path, "%s/%s", folder, name) < 0)
        return err_new(ERR_NO_MEMORY, "path of '%s'", name);
    return NULL;
}

static struct err *path_of(struct snapshot_store *store, const char *machine, const char *id,
                           const char *file, char **out_path)
{
    if (asprintf(out_path, "%s/%s/%s/%s", store_of(store)->path, machine, id, file) < 0)
        return err_new(ERR_NO_MEMORY, "path of snapshot '%s/%s'", machine, id);
    return NULL;
}

/* All entries but hidden ones; a missing folder has none. */
static struct err *list_folder(const char *path, struct name_list *out_names)
{
    DIR *folder = opendir(path);
    struct err *err = NULL;

    if (folder == NULL)
        return errno == ENOENT ? NULL : err_errno(errno, "list '%s'", path);
    for (struct dirent *entry; err == NULL && (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.')
            err = name_list_add(out_names, entry->d_name);
    (void)closedir(folder);
    return err;
}

static bool has_file(const char *machine_path, const char *id, const char *name)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof(path), "%s/%s/%s", machine_path, id, name);

    return len < (int)sizeof(path) && access(path, F_OK) == 0;
}

static bool is_published(const char *machine_path, const char *id)
{
    return has_file(machine_path, id, "manifest") && !has_file(machine_path, id, "deleted");
}

static struct err *directory_snapshots(struct snapshot_store *store, const char *machine,
                                       struct name_list *out_ids)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_name_list) struct name_list entries = {0};
    CLEANUP(cleanup_name_list) struct name_list ids = {0};

    TRY(join(&path, store_of(store)->path, machine));
    TRY(list_folder(path, &entries));
    for (size_t i = 0; i < entries.count; i++)
        if (snapshot_id_is_valid(entries.names[i]) && is_published(path, entries.names[i]))
            TRY(name_list_add(&ids, entries.names[i]));
    name_list_sort(&ids);
    *out_ids = TAKE(ids, (struct name_list){0});
    return NULL;
}

static bool is_machine_name(const char *name)
{
    struct err *err = machine_name_check(name);

    err_free(err);
    return err == NULL;
}

static struct err *directory_machines(struct snapshot_store *store, struct name_list *out_names)
{
    CLEANUP(cleanup_name_list) struct name_list entries = {0};
    CLEANUP(cleanup_name_list) struct name_list machines = {0};

    TRY(list_folder(store_of(store)->path, &entries));
    for (size_t i = 0; i < entries.count; i++) {
        CLEANUP(cleanup_name_list) struct name_list ids = {0};
        if (!is_machine_name(entries.names[i]))
            continue;
        struct err *err = directory_snapshots(store, entries.names[i], &ids);
        if (err != NULL && err_kind(err) != ERR_IO) /* a plain file is no machine */
            return err;
        err_free(err);
        if (ids.count != 0)
            TRY(name_list_add(&machines, entries.names[i]));
    }
    name_list_sort(&machines);
    *out_names = TAKE(machines, (struct name_list){0});
    return NULL;
}

static struct err *directory_read_manifest(struct snapshot_store *store, const char *machine,
                                           const char *id, void **out_data, size_t *out_len)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_free) char *deleted = NULL;

    TRY(path_of(store, machine, id, "manifest", &path));
    TRY(path_of(store, machine, id, "deleted", &deleted));
    if (access(deleted, F_OK) == 0 ||
        (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR)))
        return err_new(ERR_NOT_FOUND,
                       "there is no snapshot '%s/%s' in '%s'; vm-snapshot list names them", machine,
                       id, store_of(store)->path);
    return file_read_all(path, SNAPSHOT_MANIFEST_BYTES_MAX, out_data, out_len);
}

static struct err *directory_open_part(struct snapshot_store *store, const char *machine,
                                       const char *id, enum snapshot_part part, int *out_fd)
{
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(path_of(store, machine, id, snapshot_part_name(part), &path));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0)
        return err_errno(errno, "open '%s', a part of snapshot '%s/%s'", path, machine, id);
    *out_fd = fd;
    return NULL;
}

/* Opens and locks a lock file, creating it. *out_fd is -1 when another holds it and how says not
 * to wait. */
static struct err *take_lock(const char *folder, int how, int *out_fd)
{
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(join(&path, folder, "lock"));
    CLEANUP(cleanup_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(errno, "open '%s'", path);
    int failed = flock(fd, how);
    while (failed != 0 && errno == EINTR)
        failed = flock(fd, how);
    if (failed != 0 && errno != EWOULDBLOCK)
        return err_errno(errno, "lock '%s'", path);
    *out_fd = failed != 0 ? -1 : TAKE_FD(fd);
    return NULL;
}

static struct err *remove_file(const char *folder, const char *name)
{
    CLEANUP(cleanup_free) char *file = NULL;

    TRY(join(&file, folder, name));
    if (unlink(file) != 0 && errno != ENOENT && (errno != EISDIR || rmdir(file) != 0))
        return err_errno(errno, "remove '%s'", file);
    return NULL;
}

/* The lock goes last, so that a removal that is cut short can be taken up by the next sweep. */
static struct err *remove_folder(const char *path)
{
    static const char *const files[] = {
        "manifest.removed", "manifest.new", "memory", "index", "state", "deleted", "lock"};

    for (size_t i = 0; i < ARRAY_COUNT(files); i++)
        TRY(remove_file(path, files[i]));
    if (rmdir(path) != 0)
        return err_errno(errno, "remove '%s'", path);
    return NULL;
}

static struct err *sweep_one(const char *path)
{
    CLEANUP(cleanup_fd) int lock_fd = -1;

    TRY(take_lock(path, LOCK_EX | LOCK_NB, &lock_fd));
    if (lock_fd < 0)
        return NULL;
    TRY(remove_file(path, "manifest")); /* first: without `deleted` it would be one again */
    TRY(folder_sync(path));
    return remove_folder(path);
}

/* Snapshots that published ones have pages in. */
static struct err *find_needed(struct snapshot_store *store, const char *machine,
                               struct name_list *needed)
{
    CLEANUP(cleanup_name_list) struct name_list ids = {0};

    TRY(directory_snapshots(store, machine, &ids));
    for (size_t i = 0; i < ids.count; i++) {
        CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
        CLEANUP(cleanup_free) void *data = NULL;
        size_t len = 0;
        TRY(directory_read_manifest(store, machine, ids.names[i], &data, &len));
        TRY(manifest_parse(ids.names[i], data, len, &manifest));
        for (size_t file = 0; file < manifest->n_page_files; file++)
            TRY(name_list_add(needed, manifest->page_files[file]->snapshot));
    }
    return NULL;
}

static bool is_listed(const struct name_list *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->names[i], name) == 0)
            return true;
    return false;
}

static struct err *find_garbage(const char *machine_path, struct name_list *out_ids)
{
    CLEANUP(cleanup_name_list) struct name_list entries = {0};

    TRY(list_folder(machine_path, &entries));
    for (size_t i = 0; i < entries.count; i++)
        if (snapshot_id_is_valid(entries.names[i]) && !is_published(machine_path, entries.names[i]))
            TRY(name_list_add(out_ids, entries.names[i]));
    return NULL;
}

/* The machine's lock is held. What can not be removed is left for the next time. A snapshot that
 * lost its manifest looks like a draft, and others may stand on it: then it stays, and all does
 * when nobody knows what they stand on. */
static struct err *sweep_garbage(struct snapshot_store *store, const char *machine,
                                 const char *machine_path)
{
    CLEANUP(cleanup_name_list) struct name_list garbage = {0};
    CLEANUP(cleanup_name_list) struct name_list needed = {0};

    TRY(find_garbage(machine_path, &garbage));
    if (garbage.count != 0)
        TRY(find_needed(store, machine, &needed));
    for (size_t i = 0; i < garbage.count; i++) {
        CLEANUP(cleanup_free) char *path = NULL;
        if (is_listed(&needed, garbage.names[i]))
            continue;
        TRY(join(&path, machine_path, garbage.names[i]));
        err_free(sweep_one(path));
    }
    return NULL;
}

static void directory_draft_close(struct snapshot_draft *draft)
{
    struct directory_draft *self = draft_of(draft);

    if (!self->is_published && self->path != NULL)
        err_free(remove_folder(self->path)); /* what stays is swept by the next save */
    cleanup_fd(&self->lock_fd);
    free(self->machine_path);
    free(self->path);
    free(self);
}

static struct err *directory_draft_create_part(struct snapshot_draft *draft,
                                               enum snapshot_part part, int *out_fd)
{
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(join(&path, draft_of(draft)->path, snapshot_part_name(part)));
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(errno, "create '%s'", path);
    *out_fd = fd;
    return NULL;
}

static struct err *write_manifest(const char *path, const void *data, size_t len)
{
    CLEANUP(cleanup_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_errno(errno, "create '%s'", path);
    TRY(file_write_at(fd, path, data, len, 0));
    return file_sync(fd, path);
}

static struct err *directory_draft_publish(struct snapshot_draft *draft, const void *manifest,
                                           size_t len, const char *parent)
{
    struct directory_draft *self = draft_of(draft);
    CLEANUP(cleanup_free) char *new_path = NULL;
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_fd) int lock_fd = -1;

    TRY(join(&new_path, self->path, "manifest.new"));
    TRY(join(&path, self->path, "manifest"));
    TRY(write_manifest(new_path, manifest, len));
    TRY(folder_sync(self->path));
    TRY(folder_sync(self->machine_path));

    /* Under the lock, because the parent could be removed between a look and the rename. */
    TRY(take_lock(self->machine_path, LOCK_EX, &lock_fd));
    if (parent != NULL && !is_published(self->machine_path, parent))
        return err_new(ERR_STATE,
                       "publish the snapshot: its parent '%s' has been removed meanwhile; save "
                       "again",
                       parent);
    if (rename(new_path, path) != 0)
        return err_errno(errno, "rename '%s' to '%s'", new_path, path);
    self->is_published = true;
    return folder_sync(self->path);
}

static const struct snapshot_draft_ops directory_draft_ops = {
    .create_part = directory_draft_create_part,
    .publish = directory_draft_publish,
    .close = directory_draft_close,
};

static void cleanup_draft(struct directory_draft **draft)
{
    if (*draft != NULL)
        directory_draft_close(&(*draft)->base);
}

static struct err *directory_begin(struct snapshot_store *store, const char *machine,
                                   const char *id, struct snapshot_draft **out_draft)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_fd) int lock_fd = -1;
    CLEANUP(cleanup_draft) struct directory_draft *draft = calloc(1, sizeof(*draft));

    if (draft == NULL)
        return err_new(ERR_NO_MEMORY, "begin a snapshot");
    draft->base.ops = &directory_draft_ops;
    draft->lock_fd = -1;
    TRY(join(&draft->machine_path, store_of(store)->path, machine));
    TRY(join(&path, draft->machine_path, id));
    TRY(folder_create(draft->machine_path, FOLDER_MODE));
    TRY(take_lock(draft->machine_path, LOCK_EX, &lock_fd));
    err_free(sweep_garbage(store, machine, draft->machine_path)); /* no reason not to save */
    if (mkdir(path, FOLDER_MODE) != 0)
        return err_errno(errno, "create '%s'", path);
    draft->path = TAKE_PTR(path);
    TRY(take_lock(draft->path, LOCK_EX, &draft->lock_fd));
    TRY(folder_sync(store_of(store)->path));

    *out_draft = &draft->base;
    draft = NULL;
    return NULL;
}

static struct err *directory_remove(struct snapshot_store *store, const char *machine,
                                    const char *id, snapshot_may_remove *may_remove)
{
    CLEANUP(cleanup_free) char *machine_path = NULL;
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_free) char *manifest = NULL;
    CLEANUP(cleanup_free) char *removed = NULL;
    CLEANUP(cleanup_fd) int lock_fd = -1;

    TRY(join(&machine_path, store_of(store)->path, machine));
    TRY(join(&path, machine_path, id));
    TRY(join(&manifest, path, "manifest"));
    TRY(join(&removed, path, "manifest.removed"));
    TRY(take_lock(machine_path, LOCK_EX, &lock_fd));
    if (may_remove != NULL)
        TRY(may_remove(store, machine, id));
    if (rename(manifest, removed) != 0)
        return err_errno(errno, "unpublish snapshot '%s/%s'", machine, id);
    TRY(folder_sync(path));
    TRY(remove_folder(path));
    err_free(sweep_garbage(store, machine, machine_path)); /* what only this one needed */
    return NULL;
}

/* Other snapshots' indexes are complete: of this one they need nothing but pages. */
static struct err *directory_retire(struct snapshot_store *store, const char *machine,
                                    const char *id)
{
    CLEANUP(cleanup_free) char *machine_path = NULL;
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_free) char *deleted = NULL;
    CLEANUP(cleanup_fd) int lock_fd = -1;

    TRY(join(&machine_path, store_of(store)->path, machine));
    TRY(join(&path, machine_path, id));
    TRY(join(&deleted, path, "deleted"));
    TRY(take_lock(machine_path, LOCK_EX, &lock_fd));
    if (!is_published(machine_path, id))
        return err_new(ERR_NOT_FOUND, "there is no snapshot '%s/%s'", machine, id);
    CLEANUP(cleanup_fd) int fd = open(deleted, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(errno, "create '%s'", deleted);
    TRY(folder_sync(path));
    TRY(remove_file(path, "index"));
    TRY(remove_file(path, "state"));
    err_free(sweep_garbage(store, machine, machine_path));
    return NULL;
}

static const char *directory_path(const struct snapshot_store *store)
{
    return CONTAINER_OF(store, const struct directory_store, base)->path;
}

static void directory_destroy(struct snapshot_store *store)
{
    free(store_of(store)->path);
    free(store_of(store));
}

static const struct snapshot_store_ops directory_store_ops = {
    .name = "directory",
    .machines = directory_machines,
    .snapshots = directory_snapshots,
    .read_manifest = directory_read_manifest,
    .open_part = directory_open_part,
    .begin = directory_begin,
    .remove = directory_remove,
    .retire = directory_retire,
    .path = directory_path,
    .destroy = directory_destroy,
};

struct err *store_directory_open_existing(const char *path, struct snapshot_store **out_store)
{
    if (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_new(ERR_NOT_FOUND, "there is no store '%s'; is its file system mounted?", path);
    return store_directory_open(path, out_store);
}

struct err *store_directory_open(const char *path, struct snapshot_store **out_store)
{
    struct directory_store *store = calloc(1, sizeof(*store));

    if (store == NULL)
        return err_new(ERR_NO_MEMORY, "open snapshot store '%s'", path);
    store->base.ops = &directory_store_ops;
    store->path = strdup(path);
    if (store->path == NULL) {
        free(store);
        return err_new(ERR_NO_MEMORY, "open snapshot store '%s'", path);
    }
    *out_store = &store->base;
    return NULL;
}
