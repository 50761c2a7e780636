/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_allocator.h - which host clusters are used next, and when a released one may be.
 *
 * A cluster goes round like this:
 *
 *   free --reserve--> counted --take--> taken --(entry set)--> referenced --drop--> dropped
 *    ^                   |                |                                            |
 *    |<---give back------+<----untake-----+                                         capture
 *    |                                                                                 v
 *    +------------(the flush that wrote the entry away is durable)---------------- releasing
 *
 * Its count is raised from "counted" on until it is free again, so whatever a power cut keeps of
 * the metadata, no count is below the number of references. Counts are raised for a run of clusters
 * ahead of need: most allocations change no count, and a cut leaks that run at most. What a discard
 * freed is used first, then the run at the end of the file. Thread: any, under the image's lock,
 * but for the punching in between release_begin and release_end.
 */
#ifndef STORAGE_QCOW_QCOW_ALLOCATOR_H
#define STORAGE_QCOW_QCOW_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct host_file;
struct qcow_guard;
struct qcow_header;
struct qcow_refcounts;

struct qcow_run {
    uint64_t first; /* host clusters */
    uint64_t count;
    bool is_fresh; /* never written: reads as zeros */
};

struct qcow_run_list {
    struct qcow_run *runs; /* owned */
    size_t count;
    size_t capacity;
};

struct qcow_cluster_list {
    uint64_t *clusters; /* owned */
    size_t count;
    size_t capacity;
};

struct qcow_allocator {
    struct host_file *file;
    struct qcow_refcounts *refcounts;
    struct qcow_guard *guard; /* knows which clusters are tables */
    bool has_met_table;       /* a table that is not counted: the image is corrupt */
    unsigned cluster_bits;
    uint64_t fresh_from;      /* clusters from here on were never written */
    uint64_t tail;            /* where the search for the next run starts */
    struct qcow_run reserved; /* counted and nobody's; taken from its start */
    uint64_t reserve_count;   /* how long the next run shall be */
    uint64_t reserve_max;
    bool may_preallocate;               /* the host reserves space for the run too */
    struct qcow_run_list holes;         /* perhaps free, their counts tell; last in, first out */
    uint64_t scanned;                   /* holes below that are in the list, */
    uint64_t scan_end;                  /* and from here on none was there at the start */
    struct qcow_cluster_list dropped;   /* one item a lost reference, newest last */
    struct qcow_cluster_list releasing; /* captured by the flush that is running */
};

ERR_RESULT qcow_allocator_init(struct qcow_allocator *allocator, struct host_file *file,
                               struct qcow_refcounts *refcounts, struct qcow_guard *guard,
                               const struct qcow_header *header);
void qcow_allocator_finish(struct qcow_allocator *allocator); /* accepts a zeroed one */

/* At least one and at most `wanted` adjacent clusters, counted once. Through
 * qcow_image_take_locked, which knows what to do when a table is met. */
ERR_RESULT qcow_allocator_take(struct qcow_allocator *allocator, uint64_t wanted,
                               struct qcow_run *out_run);
/* Would taking do no I/O? Says whether what it would give is fresh. */
bool qcow_allocator_is_ready(const struct qcow_allocator *allocator, bool *out_is_fresh);

/* Gives back what no entry ever pointed to. */
void qcow_allocator_untake(struct qcow_allocator *allocator, const struct qcow_run *run);

/* Gives back what is reserved: the image is about to be closed or sealed. */
void qcow_allocator_give_back(struct qcow_allocator *allocator);

/* An entry in memory stopped pointing to the clusters of these host bytes. */
void qcow_allocator_drop(struct qcow_allocator *allocator, uint64_t offset, uint64_t len);

/* A flush: capture together with the entries, then either restore, or release when they are
 * durable. Between begin and end the caller punches what begin left in the list, unlocked. */
void qcow_allocator_capture(struct qcow_allocator *allocator);
void qcow_allocator_restore(struct qcow_allocator *allocator);
void qcow_allocator_release_begin(struct qcow_allocator *allocator);
void qcow_allocator_punch_released(const struct qcow_allocator *allocator);
void qcow_allocator_release_end(struct qcow_allocator *allocator);

#endif
