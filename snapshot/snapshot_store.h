/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_store.h - where snapshots are kept: by machine and id, each with a manifest and parts.
 *
 * A snapshot exists from the moment in which its manifest is published. Until then it is a draft,
 * which nobody else sees and which vanishes when it is discarded or its owner dies.
 * Machine names and ids have been checked by the caller (machine_name_check, snapshot_id_is_valid).
 * Thread: a store belongs to one thread.
 */
#ifndef SNAPSHOT_SNAPSHOT_STORE_H
#define SNAPSHOT_SNAPSHOT_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "snapshot/manifest.h"
#include "snapshot/name_list.h"

struct snapshot_store;
struct snapshot_draft;

typedef struct err *snapshot_may_remove(struct snapshot_store *store, const char *machine,
                                        const char *id);

struct snapshot_store_ops {
    const char *name;
    struct err *(*machines)(struct snapshot_store *store, struct name_list *out_names);
    struct err *(*snapshots)(struct snapshot_store *store, const char *machine,
                             struct name_list *out_ids);
    struct err *(*read_manifest)(struct snapshot_store *store, const char *machine, const char *id,
                                 void **out_data, size_t *out_len);
    struct err *(*open_part)(struct snapshot_store *store, const char *machine, const char *id,
                             enum snapshot_part part, int *out_fd);
    struct err *(*begin)(struct snapshot_store *store, const char *machine, const char *id,
                         struct snapshot_draft **out_draft);
    struct err *(*remove)(struct snapshot_store *store, const char *machine, const char *id,
                          snapshot_may_remove *may_remove);
    struct err *(*retire)(struct snapshot_store *store, const char *machine, const char *id);
    const char *(*path)(const struct snapshot_store *store);
    void (*destroy)(struct snapshot_store *store);
};

struct snapshot_store {
    const struct snapshot_store_ops *ops;
};

struct snapshot_draft_ops {
    struct err *(*create_part)(struct snapshot_draft *draft, enum snapshot_part part, int *out_fd);
    struct err *(*publish)(struct snapshot_draft *draft, const void *manifest, size_t len,
                           const char *parent);
    void (*close)(struct snapshot_draft *draft);
};

struct snapshot_draft {
    const struct snapshot_draft_ops *ops;
};

/* Machines that have snapshots, and the ids of one: only published ones, in order of age. */
static inline ERR_RESULT store_machines(struct snapshot_store *store, struct name_list *out_names)
{
    return store->ops->machines(store, out_names);
}

static inline ERR_RESULT store_snapshots(struct snapshot_store *store, const char *machine,
                                         struct name_list *out_ids)
{
    return store->ops->snapshots(store, machine, out_ids);
}

/* ERR_NOT_FOUND when it is not published. free() *out_data. */
static inline ERR_RESULT store_read_manifest(struct snapshot_store *store, const char *machine,
                                             const char *id, void **out_data, size_t *out_len)
{
    return store->ops->read_manifest(store, machine, id, out_data, out_len);
}

/* Read only; the fd is the caller's and stays good if the snapshot is removed. */
static inline ERR_RESULT store_open_part(struct snapshot_store *store, const char *machine,
                                         const char *id, enum snapshot_part part, int *out_fd)
{
    return store->ops->open_part(store, machine, id, part, out_fd);
}

/* Starts a snapshot; also clears away drafts whose owners died. */
static inline ERR_RESULT store_begin(struct snapshot_store *store, const char *machine,
                                     const char *id, struct snapshot_draft **out_draft)
{
    return store->ops->begin(store, machine, id, out_draft);
}

/* Unpublishes first: a crash in the middle leaves a draft without an owner. may_remove is asked
 * while nobody can publish, and keeps the snapshot by an error; NULL: nobody depends on it. */
static inline ERR_RESULT store_remove(struct snapshot_store *store, const char *machine,
                                      const char *id, snapshot_may_remove *may_remove)
{
    return store->ops->remove(store, machine, id, may_remove);
}

/* Removes it but for the memory that others need, which goes when none of these is left. */
static inline ERR_RESULT store_retire(struct snapshot_store *store, const char *machine,
                                      const char *id)
{
    return store->ops->retire(store, machine, id);
}

/* The folder; NULL when it is none, and ends with this process. */
static inline const char *snapshot_store_path(const struct snapshot_store *store)
{
    return store->ops->path(store);
}

static inline void snapshot_store_destroy(struct snapshot_store *store) /* accepts NULL */
{
    if (store != NULL)
        store->ops->destroy(store);
}

/* An empty file, open for reading and writing; the fd is the caller's. Once for each part. */
static inline ERR_RESULT draft_create_part(struct snapshot_draft *draft, enum snapshot_part part,
                                           int *out_fd)
{
    return draft->ops->create_part(draft, part, out_fd);
}

/* The commit point. The caller has synced the parts. Durable when it returns; an error leaves
 * the draft unpublished. `parent` (NULL: none) must still be published. */
static inline ERR_RESULT draft_publish(struct snapshot_draft *draft, const void *manifest,
                                       size_t len, const char *parent)
{
    return draft->ops->publish(draft, manifest, len, parent);
}

/* Removes what was not published. Accepts NULL. */
static inline void draft_close(struct snapshot_draft *draft)
{
    if (draft != NULL)
        draft->ops->close(draft);
}

DEFINE_CLEANUP(snapshot_store, struct snapshot_store, snapshot_store_destroy)

#endif
