/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_cache.c - see qcow_l2_cache.h.
 */
#include "storage/qcow/qcow_l2_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_write_list.h"

#define SLICE_WORDS_BITS_MAX 9u         /* 4 KiB */
#define CACHE_BYTES_MAX      (32 * MIB) /* the mapping of 256 GiB in clusters of 64 KiB */

static size_t slice_words(const struct qcow_l2_cache *cache)
{
    return (size_t)1 << (cache->slice_bits + cache->word_bits);
}

struct err *qcow_l2_cache_init(struct qcow_l2_cache *cache, struct host_file *file,
                               const struct qcow_entry_context *context, uint64_t l1_entries)
{
    unsigned table_bits = qcow_entry_table_bits(context);
    unsigned word_bits = qcow_entry_bytes_bits(context) - 3;
    unsigned slice_bits = MIN(table_bits, SLICE_WORDS_BITS_MAX - word_bits);

    *cache = (struct qcow_l2_cache){
        .file = file,
        .slice_bits = slice_bits,
        .word_bits = word_bits,
        .tables_count = l1_entries,
        .slices_per_table = (size_t)1 << (table_bits - slice_bits),
        .slot_limit = (size_t)(CACHE_BYTES_MAX >> (slice_bits + word_bits + 3)),
    };
    cache->tables = calloc(l1_entries + 1, sizeof(struct qcow_slice **));
    if (cache->tables == NULL)
        return err_new(ERR_NO_MEMORY, "L2 tables of '%s'", file->path);
    return NULL;
}

/* Must it stay in memory? */
static bool is_held(const struct qcow_slice *slice)
{
    return slice->is_dirty || slice->is_flushing || slice->pins > 0;
}

void qcow_l2_cache_set_bytes_max(struct qcow_l2_cache *cache, uint64_t bytes)
{
    cache->slot_limit = MAX((size_t)(bytes / (slice_words(cache) * 8)), (size_t)1);
    for (size_t i = cache->slot_count; i-- > 0 && cache->slot_count > cache->slot_limit;) {
        struct qcow_slice *slice = cache->slots[i];
        if (is_held(slice))
            continue;
        *slice->home = NULL;
        free(slice);
        cache->slots[i] = cache->slots[--cache->slot_count];
    }
    cache->hand = 0;
}

void qcow_l2_cache_finish(struct qcow_l2_cache *cache)
{
    for (size_t i = 0; i < cache->slot_count; i++)
        free(cache->slots[i]);
    free(cache->slots);
    for (uint64_t i = 0; cache->tables != NULL && i < cache->tables_count; i++)
        free(cache->tables[i]);
    free(cache->tables);
}

/* A clean slot that was not used for a whole turn of the clock hand; slot_count when none is. */
static size_t find_victim(struct qcow_l2_cache *cache)
{
    for (size_t steps = 0; steps < 2 * cache->slot_count; steps++) {
        size_t at = cache->hand;
        struct qcow_slice *slice = cache->slots[at];
        cache->hand = (at + 1) % cache->slot_count;
        if (is_held(slice))
            continue;
        if (!slice->is_recent)
            return at;
        slice->is_recent = false;
    }
    return cache->slot_count;
}

/* Gives the slot for one more slice: an emptied one, or the one behind the last. */
static struct err *make_room(struct qcow_l2_cache *cache, size_t *out_slot)
{
    if (cache->slot_count >= cache->slot_limit) {
        size_t victim = find_victim(cache);
        if (victim < cache->slot_count) {
            *cache->slots[victim]->home = NULL;
            free(TAKE_PTR(cache->slots[victim]));
            *out_slot = victim;
            return NULL;
        }
    }
    if (cache->slot_count == cache->slot_capacity) {
        size_t capacity = MAX(cache->slot_capacity * 2, (size_t)64);
        struct qcow_slice **slots = realloc(cache->slots, capacity * sizeof(struct qcow_slice *));
        if (slots == NULL)
            return err_new(ERR_NO_MEMORY, "L2 tables of '%s'", cache->file->path);
        cache->slots = slots;
        cache->slot_capacity = capacity;
    }
    *out_slot = cache->slot_count;
    return NULL;
}

static struct err *load(struct qcow_l2_cache *cache, uint64_t host_offset, struct qcow_slice **home)
{
    size_t bytes = slice_words(cache) * 8, slot = 0;
    uint8_t raw[(size_t)8 << SLICE_WORDS_BITS_MAX];
    CLEANUP(cleanup_free) struct qcow_slice *slice = calloc(1, sizeof(*slice) + bytes);
    if (slice == NULL)
        return err_new(ERR_NO_MEMORY, "L2 table of '%s'", cache->file->path);

    TRY(host_file_read_bytes(cache->file, raw, bytes, host_offset));
    TRY(make_room(cache, &slot));
    struct reader in = reader_of(raw, bytes);
    for (size_t i = 0; i < slice_words(cache); i++)
        slice->words[i] = reader_be64(&in);
    slice->host_offset = host_offset;
    slice->home = home;
    *home = slice;
    cache->slots[slot] = TAKE_PTR(slice);
    if (slot == cache->slot_count)
        cache->slot_count++;
    return NULL;
}

struct err *qcow_l2_cache_get(struct qcow_l2_cache *cache, uint64_t l1_index, uint64_t l2_index,
                              uint64_t table_offset, struct qcow_slice **out_slice)
{
    uint64_t number = l2_index >> cache->slice_bits;

    if (cache->tables[l1_index] == NULL) {
        cache->tables[l1_index] = calloc(cache->slices_per_table, sizeof(struct qcow_slice *));
        if (cache->tables[l1_index] == NULL)
            return err_new(ERR_NO_MEMORY, "L2 table of '%s'", cache->file->path);
    }
    struct qcow_slice **home = &cache->tables[l1_index][number];
    if (*home == NULL)
        TRY(load(cache, table_offset + number * slice_words(cache) * 8, home));
    (*home)->is_recent = true;
    *out_slice = *home;
    return NULL;
}

bool qcow_l2_cache_has(const struct qcow_l2_cache *cache, uint64_t l1_index, uint64_t l2_index)
{
    return cache->tables[l1_index] != NULL &&
           cache->tables[l1_index][l2_index >> cache->slice_bits] != NULL;
}

void qcow_l2_cache_forget(struct qcow_l2_cache *cache, uint64_t l1_index)
{
    struct qcow_slice **homes = cache->tables[l1_index];

    if (homes == NULL)
        return;
    for (size_t i = cache->slot_count; i-- > 0;) {
        struct qcow_slice *slice = cache->slots[i];
        uintptr_t distance = (uintptr_t)slice->home - (uintptr_t)homes;
        if (distance >= cache->slices_per_table * sizeof(struct qcow_slice *))
            continue;
        ASSERT(!is_held(slice));
        *slice->home = NULL;
        free(slice);
        cache->slots[i] = cache->slots[--cache->slot_count];
    }
    cache->hand = 0;
}

static void mark_dirty(struct qcow_l2_cache *cache, struct qcow_slice *slice)
{
    if (slice->is_dirty)
        return;
    cache->dirty_count++;
    if (!slice->is_flushing) {
        slice->next_changed = cache->changed;
        cache->changed = slice;
    }
    slice->is_dirty = true;
}

struct qcow_entry qcow_l2_cache_entry(const struct qcow_l2_cache *cache,
                                      const struct qcow_slice *slice, uint64_t index)
{
    uint64_t at = index << cache->word_bits;

    return (struct qcow_entry){slice->words[at], cache->word_bits > 0 ? slice->words[at + 1] : 0};
}

void qcow_l2_cache_set_entry(struct qcow_l2_cache *cache, struct qcow_slice *slice, uint64_t index,
                             struct qcow_entry entry)
{
    uint64_t at = index << cache->word_bits;

    slice->words[at] = entry.descriptor;
    if (cache->word_bits > 0)
        slice->words[at + 1] = entry.bitmap;
    mark_dirty(cache, slice);
}

bool qcow_l2_cache_wants_flush(const struct qcow_l2_cache *cache)
{
    return cache->dirty_count > cache->slot_limit / 2;
}

struct err *qcow_l2_cache_capture(struct qcow_l2_cache *cache, struct qcow_write_list *list)
{
    size_t bytes = slice_words(cache) * 8;

    for (struct qcow_slice *slice = cache->changed; slice != NULL; slice = slice->next_changed) {
        if (!slice->is_dirty)
            continue;
        uint8_t *copy = qcow_write_list_add(list, slice->host_offset, bytes);
        if (copy == NULL)
            return err_new(ERR_NO_MEMORY, "flush '%s'", cache->file->path);
        struct writer out = writer_of(copy, bytes);
        for (size_t j = 0; j < slice_words(cache); j++)
            writer_be64(&out, slice->words[j]);
        slice->is_dirty = false;
        slice->is_flushing = true;
        cache->dirty_count--;
    }
    return NULL;
}

void qcow_l2_cache_settle(struct qcow_l2_cache *cache, bool is_durable)
{
    struct qcow_slice **link = &cache->changed;

    while (*link != NULL) {
        struct qcow_slice *slice = *link;
        if (slice->is_flushing && !is_durable)
            mark_dirty(cache, slice);
        slice->is_flushing = false;
        if (slice->is_dirty)
            link = &slice->next_changed;
        else
            *link = slice->next_changed;
    }
}
