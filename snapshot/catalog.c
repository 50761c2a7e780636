/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog.c - see catalog.h.
 */
#include "snapshot/catalog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/runtime_folder.h"
#include "snapshot/store_directory.h"

struct err *catalog_load(struct snapshot_store *store, const char *machine, const char *id,
                         Ferry__SnapshotManifest **out_manifest)
{
    char name[sizeof(struct snapshot_name) + 2];
    CLEANUP(cleanup_free) void *data = NULL;
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    size_t len = 0;

    (void)snprintf(name, sizeof(name), "%s/%s", machine, id);
    TRY(store_read_manifest(store, machine, id, &data, &len));
    TRY(manifest_parse(name, data, len, &manifest));
    if (strcmp(manifest->id, id) != 0 || strcmp(manifest->machine, machine) != 0)
        return err_new(ERR_INVALID,
                       "snapshot '%s': its manifest is of snapshot '%s/%s': the folder was moved "
                       "or copied; give it its name back",
                       name, manifest->machine, manifest->id);
    *out_manifest = TAKE_PTR(manifest);
    return NULL;
}

struct err *catalog_newest(struct snapshot_store *store, const char *machine,
                           struct snapshot_id *out_id)
{
    CLEANUP(cleanup_name_list) struct name_list ids = {0};

    TRY(store_snapshots(store, machine, &ids));
    if (ids.count == 0)
        return err_new(ERR_NOT_FOUND, "machine '%s' has no snapshots here; vm-save makes one",
                       machine);
    (void)snprintf(out_id->text, sizeof(out_id->text), "%s", ids.names[ids.count - 1]);
    return NULL;
}

struct err *catalog_dependents(struct snapshot_store *store, const char *machine, const char *id,
                               struct name_list *out_ids)
{
    CLEANUP(cleanup_name_list) struct name_list ids = {0};
    CLEANUP(cleanup_name_list) struct name_list dependents = {0};

    TRY(store_snapshots(store, machine, &ids));
    for (size_t i = 0; i < ids.count; i++) {
        CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
        if (strcmp(ids.names[i], id) == 0)
            continue;
        struct err *err = catalog_load(store, machine, ids.names[i], &manifest);
        if (err != NULL)
            return err_wrap(err,
                            "whether '%s' needs its memory is not known; put that one right or "
                            "delete it first",
                            ids.names[i]);
        for (size_t file = 0; file < manifest->n_page_files; file++)
            if (strcmp(manifest->page_files[file]->snapshot, id) == 0)
                TRY(name_list_add(&dependents, ids.names[i]));
    }
    *out_ids = TAKE(dependents, (struct name_list){0});
    return NULL;
}

static struct err *may_delete(struct snapshot_store *store, const char *machine, const char *id)
{
    CLEANUP(cleanup_name_list) struct name_list dependents = {0};
    char names[512] = "";
    size_t len = 0;

    TRY(err_wrap(catalog_dependents(store, machine, id, &dependents), "delete snapshot '%s/%s'",
                 machine, id));
    if (dependents.count == 0)
        return NULL;
    for (size_t i = 0; i < dependents.count && len + (size_t)2 * SNAPSHOT_ID_LEN < sizeof(names);
         i++)
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", i == 0 ? "" : ", ",
                                dependents.names[i]);
    return err_new(ERR_STATE,
                   "delete snapshot '%s/%s': %zu later snapshots hold only what changed since, and "
                   "need its memory: %s; delete them first, or leave its memory for them with "
                   "--keep-memory",
                   machine, id, dependents.count, names);
}

struct err *catalog_delete(struct snapshot_store *store, const char *machine, const char *id)
{
    return store_remove(store, machine, id, may_delete);
}

/* The one id that starts with the text. */
static struct err *complete_id(struct snapshot_store *store, const char *machine, const char *text,
                               struct snapshot_id *out_id)
{
    CLEANUP(cleanup_name_list) struct name_list ids = {0};
    const char *found = NULL;

    TRY(store_snapshots(store, machine, &ids));
    for (size_t i = 0; i < ids.count; i++) {
        if (strncmp(ids.names[i], text, strlen(text)) != 0)
            continue;
        if (found != NULL)
            return err_new(ERR_INVALID, "'%s/%s' means several snapshots: %s and %s at least",
                           machine, text, found, ids.names[i]);
        found = ids.names[i];
    }
    if (found == NULL)
        return err_new(ERR_NOT_FOUND, "there is no snapshot '%s/%s'; vm-snapshot list names them",
                       machine, text);
    (void)snprintf(out_id->text, sizeof(out_id->text), "%s", found);
    return NULL;
}

static struct err *take_machine(const char *text, size_t len, struct snapshot_name *out_name)
{
    if (len > MACHINE_NAME_MAX)
        return err_new(ERR_INVALID, "'%.80s' is not a snapshot: use NAME, NAME/ID or a path", text);
    memcpy(out_name->machine, text, len);
    out_name->machine[len] = '\0';
    return machine_name_check(out_name->machine);
}

/* STORE/MACHINE/ID: cuts the last component off *inout_path and returns it. */
static const char *cut_component(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash == NULL)
        return "";
    *slash = '\0';
    return slash + 1;
}

static struct err *open_path(const char *text, struct snapshot_store **out_store,
                             struct snapshot_name *out_name)
{
    CLEANUP(cleanup_free) char *path = realpath(text, NULL);

    if (path == NULL && (errno == ENOENT || errno == ENOTDIR))
        return err_new(ERR_NOT_FOUND, "there is no snapshot '%s'", text);
    if (path == NULL)
        return err_errno(errno, "find snapshot '%s'", text);
    const char *id = cut_component(path);
    const char *machine = cut_component(path);
    if (!snapshot_id_is_valid(id))
        return err_new(ERR_INVALID, "'%s' is not the folder of a snapshot", text);
    TRY(take_machine(machine, strlen(machine), out_name));
    (void)snprintf(out_name->id.text, sizeof(out_name->id.text), "%s", id);
    return store_directory_open(path, out_store);
}

struct err *catalog_open(const char *text, const char *store_path,
                         struct snapshot_store **out_store, struct snapshot_name *out_name)
{
    const char *slash = strchr(text, '/');
    CLEANUP(cleanup_snapshot_store) struct snapshot_store *store = NULL;

    if (text[0] == '/' || text[0] == '.')
        return open_path(text, out_store, out_name);
    TRY(take_machine(text, slash == NULL ? strlen(text) : (size_t)(slash - text), out_name));
    TRY(store_directory_open_existing(store_path, &store));
    if (slash == NULL)
        TRY(catalog_newest(store, out_name->machine, &out_name->id));
    else
        TRY(complete_id(store, out_name->machine, slash + 1, &out_name->id));
    *out_store = TAKE_PTR(store);
    return NULL;
}
