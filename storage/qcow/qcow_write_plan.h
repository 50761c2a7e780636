/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write_plan.h - how a write is done, decided before a byte moves.
 *
 * A write goes in four steps:
 *
 *   plan     under the lock: look up what is there, claim it, make the L2 table, take host clusters
 *   fill     without it: write the data, with what surrounds it in its subclusters, in one piece
 *   publish  under the lock: change the L2 entries, drop what they pointed to, give up the claim
 *   flush    later, and in this order: data and counts, barrier, L2 entries, barrier
 *
 * What is there decides how:
 *
 *   data in a place of its own    overwritten; nothing is published
 *   no data, but a place          filled in subclusters, which get their bits when published
 *   no place                      a new one; an extended entry gets it at once, so that others can
 *                                 fill other subclusters meanwhile, a standard one when published
 *   packed, or a shared place     the whole cluster moves to a new place, when published
 *
 * Whatever fails before publish gives the host clusters back, unless an entry has them already:
 * an extended entry without bits reads as before.
 */
#ifndef STORAGE_QCOW_QCOW_WRITE_PLAN_H
#define STORAGE_QCOW_QCOW_WRITE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_map.h"

struct qcow_write_plan {
    struct qcow_claim claim;
    struct qcow_extent extent; /* what is there, for the bytes of the guest */
    uint64_t offset;           /* of these */
    uint64_t from, to;         /* guest bytes that are written, with what surrounds these */
    uint64_t host;             /* where `from` goes */
    bool is_in_place;          /* the entries stay */
    bool is_moving;            /* whole clusters are replaced */
    bool is_taken;             /* `run` has to be given back on failure */
    struct qcow_run run;       /* the new clusters */
};

/* Plans the first part of a write, and claims it; waits for claims that are in the way. */
ERR_RESULT qcow_write_plan_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                  struct qcow_write_plan *plan) REQUIRES(&image->lock);

/* The same for the first part of a write whose slice is in the cache, but only if nothing has to be
 * waited for, read or copied: else false, and nothing has happened. */
bool qcow_write_plan_try_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                struct qcow_write_plan *plan) REQUIRES(&image->lock);

/* Must bytes that the guest does not write be written around the others? */
bool qcow_write_plan_has_gaps(const struct qcow_image *image, const struct qcow_write_plan *plan);

/* Changes the entries: all of the plan's bytes are at their place. Not for plans in place. */
ERR_RESULT qcow_write_plan_publish_locked(struct qcow_image *image,
                                          const struct qcow_write_plan *plan)
    REQUIRES(&image->lock);
/* The bytes did not arrive: what was taken for them is free again. */
void qcow_write_plan_give_back_locked(struct qcow_image *image, const struct qcow_write_plan *plan)
    REQUIRES(&image->lock);

#endif
