/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_record_list.c - see layer_record_list.h. Tested by: layer_record_test.c
 */
#include "snapshot/layer_record_list.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "control/runtime_folder.h"
#include "snapshot/store_id.h"

#define NUMBER_MAX 999999u

static struct err *no_memory(void)
{
    return err_new(ERR_NO_MEMORY, "write down who needs layers");
}

static struct err *add_text(char ***list, size_t *count, const char *text, bool *inout_is_changed)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp((*list)[i], text) == 0)
            return NULL;

    char **texts = reallocarray(*list, *count + 1, sizeof(**list));
    if (texts == NULL)
        return no_memory();
    *list = texts;
    texts[*count] = strdup(text);
    if (texts[*count] == NULL)
        return no_memory();
    (*count)++;
    *inout_is_changed = true;
    return NULL;
}

struct err *layer_record_add_folder(Ferry__LayerRecord *record, const char *path,
                                    bool *inout_is_changed)
{
    return add_text(&record->folders, &record->n_folders, path, inout_is_changed);
}

struct err *layer_record_add_image_folder(Ferry__LayerRecord *record, const char *path,
                                          bool *inout_is_changed)
{
    return add_text(&record->image_folders, &record->n_image_folders, path, inout_is_changed);
}

static Ferry__LayerRecordStore *find_store(const Ferry__LayerRecord *record, const char *path,
                                           const char *id)
{
    for (size_t i = 0; i < record->n_stores; i++)
        if (strcmp(record->stores[i]->path, path) == 0 && strcmp(record->stores[i]->id, id) == 0)
            return record->stores[i];
    return NULL;
}

static struct err *append_store(Ferry__LayerRecord *record, const char *path, const char *id,
                                Ferry__LayerRecordStore **out_store)
{
    Ferry__LayerRecordStore **stores =
        reallocarray(record->stores, record->n_stores + 1, sizeof(*stores));
    if (stores == NULL)
        return no_memory();
    record->stores = stores;
    Ferry__LayerRecordStore *store = malloc(sizeof(*store));
    if (store == NULL)
        return no_memory();
    ferry__layer_record_store__init(store);
    stores[record->n_stores++] = store;
    store->path = strdup(path);
    store->id = strdup(id);
    *out_store = store;
    return store->path == NULL || store->id == NULL ? no_memory() : NULL;
}

struct err *layer_record_add_store(Ferry__LayerRecord *record, const char *path, const char *id,
                                   const char *machine, bool *inout_is_changed)
{
    Ferry__LayerRecordStore *store = find_store(record, path, id);

    if (store == NULL) {
        TRY(append_store(record, path, id, &store));
        *inout_is_changed = true;
    }
    return machine == NULL
               ? NULL
               : add_text(&store->machines, &store->n_machines, machine, inout_is_changed);
}

static struct err *insert_range(Ferry__LayerRecord *record, size_t at, unsigned number)
{
    Ferry__LayerRecordRange **ranges =
        reallocarray(record->sealed, record->n_sealed + 1, sizeof(*ranges));
    if (ranges == NULL)
        return no_memory();
    record->sealed = ranges;
    Ferry__LayerRecordRange *range = malloc(sizeof(*range));
    if (range == NULL)
        return no_memory();
    ferry__layer_record_range__init(range);
    range->first = range->last = number;
    memmove(&ranges[at + 1], &ranges[at], (record->n_sealed - at) * sizeof(*ranges));
    ranges[at] = range;
    record->n_sealed++;
    return NULL;
}

/* The ranges at `at` and behind it touch. */
static void join_ranges(Ferry__LayerRecord *record, size_t at)
{
    record->sealed[at]->last = record->sealed[at + 1]->last;
    ferry__layer_record_range__free_unpacked(record->sealed[at + 1], NULL);
    record->n_sealed--;
    memmove(&record->sealed[at + 1], &record->sealed[at + 2],
            (record->n_sealed - at - 1) * sizeof(*record->sealed));
}

struct err *layer_record_add_sealed(Ferry__LayerRecord *record, unsigned number,
                                    bool *inout_is_changed)
{
    size_t at = 0; /* the first range that ends at the number or behind it */

    while (at < record->n_sealed && record->sealed[at]->last < number)
        at++;
    if (at < record->n_sealed && record->sealed[at]->first <= number)
        return NULL;
    *inout_is_changed = true;
    TRY(insert_range(record, at, number));
    if (at + 1 < record->n_sealed && record->sealed[at + 1]->first == number + 1)
        join_ranges(record, at);
    if (at > 0 && record->sealed[at - 1]->last + 1 == number)
        join_ranges(record, at - 1);
    return NULL;
}

static void remove_store(Ferry__LayerRecord *record, size_t at)
{
    ferry__layer_record_store__free_unpacked(record->stores[at], NULL);
    record->n_stores--;
    memmove(&record->stores[at], &record->stores[at + 1],
            (record->n_stores - at) * sizeof(*record->stores));
}

bool layer_record_remove_path(Ferry__LayerRecord *record, const char *path)
{
    bool is_found = false;

    for (size_t i = record->n_stores; i-- > 0;)
        if (strcmp(record->stores[i]->path, path) == 0) {
            remove_store(record, i);
            is_found = true;
        }
    for (size_t i = record->n_image_folders; i-- > 0;)
        if (strcmp(record->image_folders[i], path) == 0) {
            free(record->image_folders[i]);
            record->n_image_folders--;
            memmove(&record->image_folders[i], &record->image_folders[i + 1],
                    (record->n_image_folders - i) * sizeof(*record->image_folders));
            is_found = true;
        }
    return is_found;
}

static struct err *check_paths(char *const *paths, size_t count)
{
    if (count > LAYER_RECORD_MOST)
        return err_new(ERR_INVALID, "%zu folders; the most are %u", count, LAYER_RECORD_MOST);
    for (size_t i = 0; i < count; i++)
        if (paths[i][0] != '/' || strlen(paths[i]) > PATH_BYTES_MAX)
            return err_new(ERR_INVALID, "the path of a folder is not absolute");
    return NULL;
}

static struct err *check_store(const Ferry__LayerRecordStore *store)
{
    TRY(check_paths(&store->path, 1));
    if (!store_id_is_valid(store->id))
        return err_new(ERR_INVALID, "the id of a store is malformed");
    if (store->n_machines > LAYER_RECORD_MOST)
        return err_new(ERR_INVALID, "%zu machines; the most are %u", store->n_machines,
                       LAYER_RECORD_MOST);
    for (size_t i = 0; i < store->n_machines; i++)
        TRY(machine_name_check(store->machines[i]));
    return NULL;
}

static struct err *check_ranges(const Ferry__LayerRecord *record)
{
    for (size_t i = 0; i < record->n_sealed; i++) {
        const Ferry__LayerRecordRange *range = record->sealed[i];
        if (range->first > range->last || range->last > NUMBER_MAX ||
            (i > 0 && range->first <= record->sealed[i - 1]->last))
            return err_new(ERR_INVALID, "its numbers of layers are not in order");
    }
    return NULL;
}

struct err *layer_record_check(const Ferry__LayerRecord *record)
{
    if (record->n_stores > LAYER_RECORD_MOST || record->n_sealed > NUMBER_MAX)
        return err_new(ERR_INVALID, "%zu stores and %zu ranges of layers are too many",
                       record->n_stores, record->n_sealed);
    TRY(check_paths(record->folders, record->n_folders));
    TRY(check_paths(record->image_folders, record->n_image_folders));
    for (size_t i = 0; i < record->n_stores; i++)
        TRY(check_store(record->stores[i]));
    return check_ranges(record);
}
