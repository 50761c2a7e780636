/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_budget.h - the memory that slices of L2 tables take, of all open images together.
 *
 * At most DISK_TABLES_BYTES_MAX, of which no image has a part of its own: one clock hand goes over
 * the slices of all images, and drops clean ones that were not used since it last passed. So what
 * idle images have goes to busy ones, all but DISK_TABLES_BYTES_MIN of clean slices that each
 * image keeps. What changed stays until it is flushed, and images are asked to flush when that is
 * more than half of the budget. The process has, at most,
 *
 *     DISK_TABLES_BYTES_MAX + images * DISK_TABLES_BYTES_MIN     of clean slices
 *     DISK_TABLES_BYTES_MAX / 2 + images * DISK_TABLES_BYTES_MIN / 2     of changed ones
 *
 * and what the requests in flight are about to change. Slices are counted with their headers.
 *
 * Locks: whoever asks for room holds its own image's lock; then comes the budget's; those of other
 * images are only tried, under it. An image whose lock is taken is passed by. Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_L2_BUDGET_H
#define STORAGE_QCOW_QCOW_L2_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/lock.h"

struct qcow_l2_cache;

struct qcow_l2_budget {
    size_t bytes_max; /* set before there is an image */
    /* Of slices that wait for a flush or are in one. A sum, it publishes nothing. */
    atomic_size_t changed_bytes;
    struct lock lock;
    size_t used_bytes GUARDED_BY(&lock);
    struct qcow_l2_cache *hand GUARDED_BY(&lock); /* in a ring of all; NULL: there is none */
    size_t passed GUARDED_BY(&lock);              /* slices that it left there */
};

/* The one of the process. */
struct qcow_l2_budget *qcow_l2_budget_of_process(void);

/* From join to leave other images may drop slices of the cache under its lock. Who leaves gives
 * all of its bytes back. */
void qcow_l2_budget_join(struct qcow_l2_cache *cache);
void qcow_l2_budget_leave(struct qcow_l2_cache *cache);

/* Counts one more slice, and makes room for it, if need be in the cache itself, whose lock is held.
 */
void qcow_l2_budget_take(struct qcow_l2_cache *cache);
/* Is so little used that what is only likely to be asked for takes nothing from anybody? */
bool qcow_l2_budget_has_room(struct qcow_l2_budget *budget, size_t bytes);
/* The cache has dropped slices. */
void qcow_l2_budget_give(struct qcow_l2_cache *cache, size_t slices);
/* Slices of the cache became clean: drops what is too much. Its lock is held. */
void qcow_l2_budget_trim(struct qcow_l2_cache *cache);

/* Counts slices that changed, or were flushed. */
void qcow_l2_budget_add_changed(struct qcow_l2_cache *cache, size_t slices);
void qcow_l2_budget_remove_changed(struct qcow_l2_cache *cache, size_t slices);
/* Should whoever has changed slices flush them? */
bool qcow_l2_budget_wants_flush(const struct qcow_l2_budget *budget);

#endif
