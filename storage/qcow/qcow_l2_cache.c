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
#include "storage/qcow/qcow_l2_budget.h"
#include "storage/qcow/qcow_write_list.h"

#define SLICE_WORDS_BITS_MAX 9u /* 4 KiB */
#define ROW_SLICES           ((size_t)16)
#define DIRTY_BYTES_MAX      (16 * MIB) /* what a flush is to write, of slices */

static size_t slice_words(const struct qcow_l2_cache *cache)
{
    return (size_t)1 << (cache->slice_bits + cache->word_bits);
}

struct err *qcow_l2_cache_init(struct qcow_l2_cache *cache, struct host_file *file,
                               const struct qcow_entry_context *context, uint64_t l1_entries,
                               struct qcow_l2_budget *budget, struct lock *lock)
{
    unsigned table_bits = qcow_entry_table_bits(context);
    unsigned word_bits = qcow_entry_bytes_bits(context) - 3;
    unsigned slice_bits = MIN(table_bits, SLICE_WORDS_BITS_MAX - word_bits);

    *cache = (struct qcow_l2_cache){
        .file = file,
        .lock = lock,
        .slice_bits = slice_bits,
        .word_bits = word_bits,
        .tables_count = l1_entries,
        .slices_per_table = (size_t)1 << (table_bits - slice_bits),
        .budget = budget,
        .slice_bytes = sizeof(struct qcow_slice) + ((size_t)8 << (slice_bits + word_bits)),
    };
    cache->tables = calloc(l1_entries + 1, sizeof(struct qcow_slice **));
    if (cache->tables == NULL)
        return err_new(ERR_NO_MEMORY, "L2 tables of '%s'", file->path);
    qcow_l2_budget_join(cache);
    return NULL;
}

/* Must it stay in memory? */
static bool is_held(const struct qcow_slice *slice)
{
    return slice->is_dirty || slice->is_flushing || slice->pins > 0;
}

/* Where the hand comes last. */
static void ring_add(struct qcow_l2_cache *cache, struct qcow_slice *slice)
{
    if (cache->hand == NULL) {
        cache->hand = slice->next = slice->previous = slice;
    } else {
        slice->next = cache->hand;
        slice->previous = cache->hand->previous;
        slice->next->previous = slice->previous->next = slice;
    }
    cache->slice_count++;
}

static void slice_free(struct qcow_l2_cache *cache, struct qcow_slice *slice)
{
    if (cache->hand == slice)
        cache->hand = slice->next == slice ? NULL : slice->next;
    slice->next->previous = slice->previous;
    slice->previous->next = slice->next;
    *slice->home = NULL;
    free(slice);
    cache->slice_count--;
}

void qcow_l2_cache_finish(struct qcow_l2_cache *cache)
{
    if (cache->tables == NULL)
        return;
    qcow_l2_budget_leave(cache);
    qcow_l2_budget_remove_changed(cache, cache->changed_count);
    while (cache->hand != NULL)
        slice_free(cache, cache->hand);
    for (uint64_t i = 0; i < cache->tables_count; i++)
        free(cache->tables[i]);
    free(cache->tables);
}

size_t qcow_l2_cache_drop(struct qcow_l2_cache *cache, enum qcow_l2_drop which, size_t wanted,
                          size_t *steps)
{
    size_t kept = DISK_TABLES_BYTES_MIN / cache->slice_bytes, dropped = 0;

    while (*steps > 0 && dropped < wanted && cache->slice_count > cache->changed_count + kept) {
        struct qcow_slice *slice = cache->hand;
        ASSERT(slice != NULL);
        cache->hand = slice->next;
        (*steps)--;
        if (!is_held(slice) && (which == QCOW_L2_DROP_CLEAN || !slice->is_recent)) {
            slice_free(cache, slice);
            dropped++;
        } else {
            slice->is_recent = false;
        }
    }
    return dropped;
}

/* The slice, from its bytes in the file. The budget has counted it. */
static struct err *add(struct qcow_l2_cache *cache, const uint8_t *raw, uint64_t host_offset,
                       struct qcow_slice **home)
{
    struct qcow_slice *slice = calloc(1, cache->slice_bytes);
    if (slice == NULL) {
        qcow_l2_budget_give(cache, 1);
        return err_new(ERR_NO_MEMORY, "L2 table of '%s'", cache->file->path);
    }
    struct reader in = reader_of(raw, slice_words(cache) * 8);
    for (size_t i = 0; i < slice_words(cache); i++)
        slice->words[i] = reader_be64(&in);
    slice->host_offset = host_offset;
    slice->home = home;
    *home = slice;
    ring_add(cache, slice);
    return NULL;
}

/* A table of which some slices are wanted. */
struct wanted {
    uint64_t offset;
    struct qcow_slice **homes; /* of all its slices */
    size_t number;
};

static struct err *load_one(struct qcow_l2_cache *cache, const struct wanted *wanted)
{
    uint8_t raw[(size_t)8 << SLICE_WORDS_BITS_MAX];
    size_t bytes = slice_words(cache) * 8;
    uint64_t at = wanted->offset + wanted->number * bytes;

    TRY(host_file_read_bytes(cache->file, raw, bytes, at));
    qcow_l2_budget_take(cache);
    return add(cache, raw, at, &wanted->homes[wanted->number]);
}

/* Those around it, too, that are not there: what is there may be newer than the file. The wanted
 * one comes last, so that no other takes its place. */
static struct err *add_row(struct qcow_l2_cache *cache, const struct wanted *wanted, size_t first,
                           size_t count, const uint8_t *raw)
{
    size_t bytes = slice_words(cache) * 8, own = wanted->number - first;

    for (size_t i = 0; i < count; i++) {
        if (i == own || wanted->homes[first + i] != NULL)
            continue;
        qcow_l2_budget_take(cache);
        TRY(add(cache, raw + i * bytes, wanted->offset + (first + i) * bytes,
                &wanted->homes[first + i]));
    }
    qcow_l2_budget_take(cache);
    return add(cache, raw + own * bytes, wanted->offset + wanted->number * bytes,
               &wanted->homes[wanted->number]);
}

static struct err *load(struct qcow_l2_cache *cache, const struct wanted *wanted)
{
    size_t count = MIN(cache->slices_per_table, ROW_SLICES), bytes = slice_words(cache) * 8;
    size_t first = wanted->number & ~(count - 1);

    if (count == 1 || !qcow_l2_budget_has_room(cache->budget, count * cache->slice_bytes))
        return load_one(cache, wanted);
    CLEANUP(cleanup_free) uint8_t *raw = malloc(count * bytes);
    if (raw == NULL)
        return load_one(cache, wanted);
    struct err *err =
        host_file_read_bytes(cache->file, raw, count * bytes, wanted->offset + first * bytes);
    if (err == NULL)
        return add_row(cache, wanted, first, count, raw);
    err_free(err); /* of what was not asked for, perhaps */
    return load_one(cache, wanted);
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
    struct qcow_slice **homes = cache->tables[l1_index];
    if (homes[number] == NULL)
        TRY(load(cache, &(struct wanted){table_offset, homes, number}));
    struct qcow_slice *slice = homes[number];
    ASSERT(slice != NULL);
    slice->is_recent = true;
    *out_slice = slice;
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
    size_t dropped = 0;

    for (size_t i = 0; homes != NULL && i < cache->slices_per_table; i++) {
        if (homes[i] == NULL)
            continue;
        ASSERT(!is_held(homes[i]));
        slice_free(cache, homes[i]);
        dropped++;
    }
    qcow_l2_budget_give(cache, dropped);
}

static void mark_dirty(struct qcow_l2_cache *cache, struct qcow_slice *slice)
{
    if (slice->is_dirty)
        return;
    cache->dirty_count++;
    if (!slice->is_flushing) {
        slice->next_changed = cache->changed;
        cache->changed = slice;
        cache->changed_count++;
        qcow_l2_budget_add_changed(cache, 1);
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
    uint64_t bytes = (uint64_t)cache->dirty_count * cache->slice_bytes;

    return bytes > DIRTY_BYTES_MAX ||
           (bytes > DISK_TABLES_BYTES_MIN / 2 && qcow_l2_budget_wants_flush(cache->budget));
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
    size_t changed_before = cache->changed_count;

    while (*link != NULL) {
        struct qcow_slice *slice = *link;
        if (slice->is_flushing && !is_durable)
            mark_dirty(cache, slice);
        slice->is_flushing = false;
        if (slice->is_dirty) {
            link = &slice->next_changed;
        } else {
            *link = slice->next_changed;
            cache->changed_count--;
        }
    }
    qcow_l2_budget_remove_changed(cache, changed_before - cache->changed_count);
    qcow_l2_budget_trim(cache);
}
