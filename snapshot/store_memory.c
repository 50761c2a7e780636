/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_memory.c - see store_memory.h. Tested by: store_directory_test.c, which runs on both.
 */
#include "snapshot/store_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "snapshot/snapshot_id.h"

#define ENTRIES_MAX 256u

struct memory_entry {
    char machine[64];
    char id[SNAPSHOT_ID_LEN + 1];
    int parts[SNAPSHOT_PART_COUNT]; /* owned; -1: none */
    void *manifest;                 /* owned; NULL: a draft */
    size_t manifest_len;
    bool is_retired;
};

struct memory_store {
    struct snapshot_store base;
    struct memory_entry entries[ENTRIES_MAX];
    size_t count;
    unsigned draft_count;
    bool is_full[SNAPSHOT_PART_COUNT];
    bool refuses_publish;
};

struct memory_draft {
    struct snapshot_draft base;
    struct memory_store *store;
    struct memory_entry *entry;
};

static struct memory_store *store_of(struct snapshot_store *store)
{
    return CONTAINER_OF(store, struct memory_store, base);
}

static struct memory_draft *draft_of(struct snapshot_draft *draft)
{
    return CONTAINER_OF(draft, struct memory_draft, base);
}

static struct memory_entry *find(struct snapshot_store *store, const char *id)
{
    struct memory_store *self = store_of(store);

    for (size_t i = 0; i < self->count; i++)
        if (self->entries[i].manifest != NULL && strcmp(self->entries[i].id, id) == 0)
            return &self->entries[i];
    return NULL;
}

static void entry_clear(struct memory_entry *entry)
{
    for (size_t i = 0; i < SNAPSHOT_PART_COUNT; i++) {
        cleanup_fd(&entry->parts[i]);
        entry->parts[i] = -1;
    }
    free(TAKE_PTR(entry->manifest));
}

static struct err *memory_machines(struct snapshot_store *store, struct name_list *out_names)
{
    struct memory_store *self = store_of(store);

    for (size_t i = 0; i < self->count; i++) {
        bool is_listed = self->entries[i].manifest == NULL || self->entries[i].is_retired;
        for (size_t j = 0; j < out_names->count; j++)
            is_listed = is_listed || strcmp(out_names->names[j], self->entries[i].machine) == 0;
        if (!is_listed)
            TRY(name_list_add(out_names, self->entries[i].machine));
    }
    name_list_sort(out_names);
    return NULL;
}

static struct err *memory_snapshots(struct snapshot_store *store, const char *machine,
                                    struct name_list *out_ids)
{
    struct memory_store *self = store_of(store);

    for (size_t i = 0; i < self->count; i++)
        if (self->entries[i].manifest != NULL && !self->entries[i].is_retired &&
            strcmp(self->entries[i].machine, machine) == 0)
            TRY(name_list_add(out_ids, self->entries[i].id));
    name_list_sort(out_ids);
    return NULL;
}

static struct err *memory_read_manifest(struct snapshot_store *store, const char *machine,
                                        const char *id, void **out_data, size_t *out_len)
{
    struct memory_entry *entry = find(store, id);

    if (entry == NULL || entry->is_retired || strcmp(entry->machine, machine) != 0)
        return err_new(ERR_NOT_FOUND, "there is no snapshot '%s/%s'", machine, id);
    void *data = malloc(entry->manifest_len);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "copy the manifest");
    memcpy(data, entry->manifest, entry->manifest_len);
    *out_data = data;
    *out_len = entry->manifest_len;
    return NULL;
}

static struct err *duplicate(int fd, int *out_fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy < 0)
        return err_errno(errno, "duplicate a part's descriptor");
    *out_fd = copy;
    return NULL;
}

static struct err *memory_open_part(struct snapshot_store *store, const char *machine,
                                    const char *id, enum snapshot_part part, int *out_fd)
{
    struct memory_entry *entry = find(store, id);

    if (entry == NULL || strcmp(entry->machine, machine) != 0)
        return err_new(ERR_NOT_FOUND, "there is no snapshot '%s/%s'", machine, id);
    return duplicate(entry->parts[part], out_fd);
}

static struct err *memory_draft_create_part(struct snapshot_draft *draft, enum snapshot_part part,
                                            int *out_fd)
{
    struct memory_draft *self = draft_of(draft);
    int fd = self->store->is_full[part] ? open("/dev/full", O_RDWR | O_CLOEXEC)
                                        : memfd_create("part", MFD_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "create part '%s'", snapshot_part_name(part));
    ASSERT(self->entry->parts[part] < 0);
    self->entry->parts[part] = fd;
    return duplicate(fd, out_fd);
}

static struct err *memory_draft_publish(struct snapshot_draft *draft, const void *manifest,
                                        size_t len, const char *parent)
{
    struct memory_draft *self = draft_of(draft);

    if (self->store->refuses_publish)
        return err_errno(EIO, "publish the snapshot");
    if (parent != NULL && find(&self->store->base, parent) == NULL)
        return err_new(ERR_STATE, "publish the snapshot: its parent '%s' has been removed", parent);
    self->entry->manifest = malloc(len);
    if (self->entry->manifest == NULL)
        return err_new(ERR_NO_MEMORY, "publish the snapshot");
    memcpy(self->entry->manifest, manifest, len);
    self->entry->manifest_len = len;
    return NULL;
}

static void memory_draft_close(struct snapshot_draft *draft)
{
    struct memory_draft *self = draft_of(draft);

    if (self->entry->manifest == NULL)
        entry_clear(self->entry);
    self->store->draft_count--;
    free(self);
}

static const struct snapshot_draft_ops memory_draft_ops = {
    .create_part = memory_draft_create_part,
    .publish = memory_draft_publish,
    .close = memory_draft_close,
};

static struct err *memory_begin(struct snapshot_store *store, const char *machine, const char *id,
                                struct snapshot_draft **out_draft)
{
    struct memory_store *self = store_of(store);
    struct memory_draft *draft = calloc(1, sizeof(*draft));

    if (draft == NULL)
        return err_new(ERR_NO_MEMORY, "begin a snapshot");
    ASSERT(self->count < ENTRIES_MAX);
    draft->base.ops = &memory_draft_ops;
    draft->store = self;
    draft->entry = &self->entries[self->count++];
    for (size_t i = 0; i < SNAPSHOT_PART_COUNT; i++)
        draft->entry->parts[i] = -1;
    (void)snprintf(draft->entry->machine, sizeof(draft->entry->machine), "%s", machine);
    (void)snprintf(draft->entry->id, sizeof(draft->entry->id), "%s", id);
    self->draft_count++;
    *out_draft = &draft->base;
    return NULL;
}

static struct err *memory_remove(struct snapshot_store *store, const char *machine, const char *id,
                                 snapshot_may_remove *may_remove)
{
    struct memory_entry *entry = find(store, id);

    if (entry == NULL || strcmp(entry->machine, machine) != 0)
        return err_new(ERR_NOT_FOUND, "there is no snapshot '%s/%s'", machine, id);
    if (may_remove != NULL)
        TRY(may_remove(store, machine, id));
    entry_clear(entry);
    return NULL;
}

/* Its memory stays as long as the store does. */
static struct err *memory_retire(struct snapshot_store *store, const char *machine, const char *id)
{
    struct memory_entry *entry = find(store, id);

    if (entry == NULL || entry->is_retired || strcmp(entry->machine, machine) != 0)
        return err_new(ERR_NOT_FOUND, "there is no snapshot '%s/%s'", machine, id);
    entry->is_retired = true;
    return NULL;
}

static const char *memory_path(const struct snapshot_store *store)
{
    (void)store;
    return NULL;
}

static void memory_destroy(struct snapshot_store *store)
{
    struct memory_store *self = store_of(store);

    for (size_t i = 0; i < self->count; i++)
        entry_clear(&self->entries[i]);
    free(self);
}

void store_memory_fill_up(struct snapshot_store *store, enum snapshot_part part)
{
    store_of(store)->is_full[part] = true;
}

void store_memory_refuse_publish(struct snapshot_store *store)
{
    store_of(store)->refuses_publish = true;
}

unsigned store_memory_draft_count(struct snapshot_store *store)
{
    return store_of(store)->draft_count;
}

int store_memory_part_fd(struct snapshot_store *store, const char *id, enum snapshot_part part)
{
    struct memory_entry *entry = find(store, id);

    return entry == NULL ? -1 : entry->parts[part];
}

static const struct snapshot_store_ops memory_store_ops = {
    .name = "memory",
    .machines = memory_machines,
    .snapshots = memory_snapshots,
    .read_manifest = memory_read_manifest,
    .open_part = memory_open_part,
    .begin = memory_begin,
    .remove = memory_remove,
    .retire = memory_retire,
    .path = memory_path,
    .destroy = memory_destroy,
};

struct err *store_memory_create(struct snapshot_store **out_store)
{
    struct memory_store *store = calloc(1, sizeof(*store));

    if (store == NULL)
        return err_new(ERR_NO_MEMORY, "create a store");
    store->base.ops = &memory_store_ops;
    *out_store = &store->base;
    return NULL;
}
