/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_needs.c - see layer_needs.h. Tested by: layer_prune_test.c
 *
 * An image that a snapshot names and that is not there can not be removed, so it does not matter.
 */
#include "snapshot/layer_needs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/file_io.h"
#include "snapshot/store_id.h"
#include "snapshot/store_manifests.h"

struct collector {
    struct store_manifests_visitor base;
    struct layer_needs *needs;
};

static struct err *append(struct file_list *list, const struct stat *file)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity * 2 + 64;
        struct stat *files = reallocarray(list->files, capacity, sizeof(*files));
        if (files == NULL)
            return err_new(ERR_NO_MEMORY, "list what snapshots need");
        list->files = files;
        list->capacity = capacity;
    }
    list->files[list->count++] = *file;
    return NULL;
}

static struct err *add_disk(struct layer_needs *needs, const Ferry__SnapshotDisk *disk)
{
    struct stat status;

    if (stat(disk->path, &status) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? NULL
                   : err_errno(errno, "look at '%s', which a snapshot needs", disk->path);
    TRY(append(&needs->named, &status));
    return strcmp(disk->format, "raw") == 0 ? append(&needs->raw, &status) : NULL;
}

static struct err *add_snapshot(struct store_manifests_visitor *base,
                                const Ferry__SnapshotManifest *manifest)
{
    struct layer_needs *needs = CONTAINER_OF(base, struct collector, base)->needs;

    needs->snapshot_count++;
    for (size_t i = 0; i < manifest->n_disks; i++)
        TRY(add_disk(needs, manifest->disks[i]));
    return NULL;
}

struct err *layer_needs_add_store(struct layer_needs *needs, const char *path)
{
    struct collector collector = {.base.visit = add_snapshot, .needs = needs};

    return store_manifests_visit(path, &collector.base);
}

static struct err *check_identity(const Ferry__LayerRecordStore *store)
{
    struct store_id id;
    struct err *err = store_id_read(store->path, &id);

    if (err == NULL && strcmp(id.text, store->id) == 0)
        return NULL;
    if (err != NULL && err_kind(err) != ERR_NOT_FOUND)
        return err;
    bool is_missing = err != NULL;
    err_free(err);
    return err_new(ERR_STATE,
                   "store '%s' has snapshots of this disk, and %s; mount it or put it back; if it "
                   "was moved, name it with --store, and strike the old place out with --forget "
                   "'%s', as if it is gone for good",
                   store->path,
                   is_missing ? "is not there" : "another one is in its place, or none",
                   store->path);
}

/* The identity is looked at again in the end: nobody moved or unmounted it meanwhile. */
struct err *layer_needs_add_recorded(struct layer_needs *needs,
                                     const Ferry__LayerRecordStore *store)
{
    TRY(check_identity(store));
    for (size_t i = 0; i < store->n_machines; i++)
        TRY(store_manifests_check_machine(store->path, store->machines[i]));
    TRY(layer_needs_add_store(needs, store->path));
    return check_identity(store);
}

static int compare(const void *a, const void *b)
{
    return file_compare(a, b);
}

void layer_needs_sort(struct layer_needs *needs)
{
    if (needs->named.count != 0)
        qsort(needs->named.files, needs->named.count, sizeof(needs->named.files[0]), compare);
}

bool layer_needs_has(const struct layer_needs *needs, const struct stat *file)
{
    return needs->named.count != 0 &&
           bsearch(file, needs->named.files, needs->named.count, sizeof(*file), compare) != NULL;
}

void layer_needs_finish(struct layer_needs *needs)
{
    free(needs->named.files);
    free(needs->raw.files);
    *needs = (struct layer_needs){0};
}
