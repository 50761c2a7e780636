/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_cache.h - parts of L2 tables in memory.
 *
 * The unit is a slice: 4 KiB of a table, or the whole of a smaller one. As long as less than half
 * of the memory for slices is used, the 16 of a row that are read in one go are all kept: to read
 * one takes a disk as long. Clean slices are dropped when the memory for those of all images is
 * used up (qcow_l2_budget.h), changed ones stay until a flush has made them durable. Thread: any,
 * under the image's lock, which other images take when they drop slices of this one; a slice is
 * valid until the lock is released.
 */
#ifndef STORAGE_QCOW_QCOW_L2_CACHE_H
#define STORAGE_QCOW_QCOW_L2_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_l2_entry.h"

struct host_file;
struct lock;
struct qcow_l2_budget;
struct qcow_write_list;

struct qcow_slice {
    uint64_t host_offset;
    struct qcow_slice **home;           /* what points to it, cleared when it is dropped */
    struct qcow_slice *next, *previous; /* in the ring of all */
    struct qcow_slice *next_changed;
    bool is_dirty;    /* changed since the last capture */
    bool is_flushing; /* captured, not settled */
    bool is_recent;   /* used since the clock hand last passed */
    unsigned pins;    /* by those who will change it without wanting to load it */
    uint64_t words[]; /* one or two for each entry */
};

struct qcow_l2_cache {
    struct host_file *file;
    struct lock *lock;           /* the image's: guards all but the fields of the budget */
    unsigned slice_bits;         /* a slice has 1 << slice_bits entries */
    unsigned word_bits;          /* an entry has 1 << word_bits words of 8 bytes */
    uint64_t tables_count;       /* L1 entries */
    size_t slices_per_table;     /* a power of two */
    struct qcow_slice ***tables; /* owned; by L1 index, then by slice of the table */
    struct qcow_slice *hand;     /* in a ring of all slices; NULL: there is none */
    size_t slice_count;
    size_t changed_count; /* in the list of changed ones */
    size_t dirty_count;
    struct qcow_slice *changed; /* those that wait for a flush, or are in one */

    struct qcow_l2_budget *budget;
    size_t slice_bytes;                    /* of memory */
    size_t used_bytes;                     /* all slices, and the one that is being loaded */
    struct qcow_l2_cache *next, *previous; /* in the ring of all images */
};

ERR_RESULT qcow_l2_cache_init(struct qcow_l2_cache *cache, struct host_file *file,
                              const struct qcow_entry_context *context, uint64_t l1_entries,
                              struct qcow_l2_budget *budget, struct lock *lock);
void qcow_l2_cache_finish(struct qcow_l2_cache *cache); /* accepts a zeroed one */

/* For the budget: drops clean slices, at most `wanted`, of the next *steps that the clock hand
 * passes, and leaves DISK_TABLES_BYTES_MIN of them. Gives how many, and which steps were not made.
 */
enum qcow_l2_drop { QCOW_L2_DROP_UNUSED, QCOW_L2_DROP_CLEAN };
size_t qcow_l2_cache_drop(struct qcow_l2_cache *cache, enum qcow_l2_drop which, size_t wanted,
                          size_t *steps);

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
