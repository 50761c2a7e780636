/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_cache.h - parts of L2 tables in memory.
 *
 * The unit is a slice: 4 KiB of a table, or the whole of a smaller one. Clean slices are evicted
 * when the cache is full, changed ones stay until a flush has made them durable. Thread: any,
 * under the image's lock; a slice is valid until the lock is released.
 */
#ifndef STORAGE_QCOW_QCOW_L2_CACHE_H
#define STORAGE_QCOW_QCOW_L2_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_l2_entry.h"

struct host_file;
struct qcow_write_list;

struct qcow_slice {
    uint64_t host_offset;
    struct qcow_slice **home; /* what points to it, cleared when it is evicted */
    struct qcow_slice *next_changed;
    bool is_dirty;    /* changed since the last capture */
    bool is_flushing; /* captured, not settled */
    bool is_recent;   /* used since the clock hand last passed */
    unsigned pins;    /* by those who will change it without wanting to load it */
    uint64_t words[]; /* one or two for each entry */
};

struct qcow_l2_cache {
    struct host_file *file;
    unsigned slice_bits;         /* a slice has 1 << slice_bits entries */
    unsigned word_bits;          /* an entry has 1 << word_bits words of 8 bytes */
    uint64_t tables_count;       /* L1 entries */
    size_t slices_per_table;     /* a power of two */
    struct qcow_slice ***tables; /* owned; by L1 index, then by slice of the table */
    struct qcow_slice **slots;   /* owned; every cached slice, in no order */
    size_t slot_count;
    size_t slot_limit; /* wanted most; more while all are changed */
    size_t slot_capacity;
    size_t hand;
    size_t dirty_count;
    struct qcow_slice *changed; /* those that wait for a flush, or are in one */
};

ERR_RESULT qcow_l2_cache_init(struct qcow_l2_cache *cache, struct host_file *file,
                              const struct qcow_entry_context *context, uint64_t l1_entries);
void qcow_l2_cache_finish(struct qcow_l2_cache *cache); /* accepts a zeroed one */

/* Clean slices beyond it are dropped; as ever, a slice is valid until the lock is released. */
void qcow_l2_cache_set_bytes_max(struct qcow_l2_cache *cache, uint64_t bytes);

/* The slice of the table at table_offset that holds the entry of this index in the table. */
ERR_RESULT qcow_l2_cache_get(struct qcow_l2_cache *cache, uint64_t l1_index, uint64_t l2_index,
                             uint64_t table_offset, struct qcow_slice **out_slice);

/* Is that slice in the cache? */
bool qcow_l2_cache_has(const struct qcow_l2_cache *cache, uint64_t l1_index, uint64_t l2_index);

/* Drops the slices of a table that another has taken the place of; none of them is changed. */
void qcow_l2_cache_forget(struct qcow_l2_cache *cache, uint64_t l1_index);

/* One entry of a slice, by its index there. Setting it marks the slice as changed. */
struct qcow_entry qcow_l2_cache_entry(const struct qcow_l2_cache *cache,
                                      const struct qcow_slice *slice, uint64_t index);
void qcow_l2_cache_set_entry(struct qcow_l2_cache *cache, struct qcow_slice *slice, uint64_t index,
                             struct qcow_entry entry);

/* So many slices wait for a flush that the next writer should make one. */
bool qcow_l2_cache_wants_flush(const struct qcow_l2_cache *cache);

/* Copies what has changed into the list; settle says whether the list became durable. */
ERR_RESULT qcow_l2_cache_capture(struct qcow_l2_cache *cache, struct qcow_write_list *list);
void qcow_l2_cache_settle(struct qcow_l2_cache *cache, bool is_durable);

#endif
