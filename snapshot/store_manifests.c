/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_manifests.c - see store_manifests.h.
 */
#include "snapshot/store_manifests.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "snapshot/snapshot_store.h"

static struct err *join(const char *folder, const char *name, char **out_path)
{
    if (asprintf(out_path, "%s/%s", folder, name) < 0)
        return err_new(ERR_NO_MEMORY, "look into '%s'", folder);
    return NULL;
}

static struct err *visit_manifest(const char *folder, struct store_manifests_visitor *visitor)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_free) char *deleted = NULL;
    CLEANUP(cleanup_free) void *data = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    size_t len = 0;

    TRY(join(folder, "manifest", &path));
    if (access(path, F_OK) != 0)
        return errno == ENOENT ? NULL : err_errno(errno, "look for '%s'", path);
    TRY(join(folder, "deleted", &deleted));
    if (access(deleted, F_OK) == 0)
        return NULL;
    TRY(file_read_all(path, SNAPSHOT_MANIFEST_BYTES_MAX, &data, &len));
    TRY(manifest_parse(folder, data, len, &manifest));
    return visitor->visit(visitor, manifest);
}

/* A folder, also one that a symbolic link leads to. A link that leads nowhere may lead to what is
 * not mounted. */
static struct err *is_folder(const char *path, bool *out_is_folder)
{
    struct stat status, own;

    *out_is_folder = false;
    if (lstat(path, &own) != 0)
        return errno == ENOENT ? NULL : err_errno(errno, "look at '%s'", path);
    if (stat(path, &status) != 0)
        return err_errno(errno, "look where '%s' leads", path);
    *out_is_folder = S_ISDIR(status.st_mode);
    return NULL;
}

static struct err *add_folder(const char *path, const char *name, struct name_list *folders)
{
    CLEANUP(cleanup_free) char *entry = NULL;
    bool is_inside = false;

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return NULL;
    TRY(join(path, name, &entry));
    TRY(is_folder(entry, &is_inside));
    return is_inside ? name_list_add(folders, entry) : NULL;
}

/* The folders in it, whatever they are called. */
static struct err *list_folders(const char *path, struct name_list *folders)
{
    CLEANUP(cleanup_folder) DIR *folder = opendir(path);

    if (folder == NULL)
        return err_errno(errno, "look into '%s'", path);
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL && errno != 0)
            return err_errno(errno, "look into '%s'", path);
        if (entry == NULL)
            return NULL;
        TRY(add_folder(path, entry->d_name, folders));
    }
}

static struct err *visit_machine(const char *path, struct store_manifests_visitor *visitor)
{
    CLEANUP(cleanup_name_list) struct name_list snapshots = {0};

    TRY(list_folders(path, &snapshots));
    for (size_t i = 0; i < snapshots.count; i++)
        TRY(visit_manifest(snapshots.names[i], visitor));
    return NULL;
}

static struct err *visit_store(const char *path, struct store_manifests_visitor *visitor)
{
    CLEANUP(cleanup_name_list) struct name_list machines = {0};

    TRY(list_folders(path, &machines));
    for (size_t i = 0; i < machines.count; i++)
        TRY(visit_machine(machines.names[i], visitor));
    return NULL;
}

struct err *store_manifests_visit(const char *store_path, struct store_manifests_visitor *visitor)
{
    if (access(store_path, F_OK) != 0 && errno == ENOENT)
        return err_new(ERR_NOT_FOUND, "there is no store '%s'", store_path);
    return err_wrap(visit_store(store_path, visitor), "store '%s'", store_path);
}

struct err *store_manifests_check_machine(const char *store_path, const char *machine)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    CLEANUP(cleanup_free) char *lock = NULL;
    bool is_there = false;

    TRY(join(store_path, machine, &folder));
    TRY(join(folder, "lock", &lock));
    TRY(is_folder(folder, &is_there));
    if (!is_there || access(lock, F_OK) == 0)
        return NULL;
    if (errno != ENOENT)
        return err_errno(errno, "look at '%s'", lock);
    return err_new(ERR_STATE,
                   "'%s' is not as a save left it: is the file system of the snapshots of '%s' "
                   "mounted there? If they are gone for good, remove the folder",
                   folder, machine);
}
