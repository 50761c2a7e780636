/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_image_internal.h - an open image, as its parts see it.
 *
 * One lock guards all metadata; data is moved without it, under a claim. Functions that end in
 * _locked expect it to be held. Everything else takes it itself.
 */
#ifndef STORAGE_QCOW_QCOW_IMAGE_INTERNAL_H
#define STORAGE_QCOW_QCOW_IMAGE_INTERNAL_H

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/lock.h"
#include "storage/block.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_allocator.h"
#include "storage/qcow/qcow_bitmap_track.h"
#include "storage/qcow/qcow_claims.h"
#include "storage/qcow/qcow_guard.h"
#include "storage/qcow/qcow_header.h"
#include "storage/qcow/qcow_l1.h"
#include "storage/qcow/qcow_l2_cache.h"
#include "storage/qcow/qcow_l2_entry.h"
#include "storage/qcow/qcow_refcounts.h"

struct qcow_hold;

/* Flushes are numbered; one that starts after a request came in serves it. */
struct qcow_flush_state {
    uint64_t started;
    uint64_t succeeded; /* the newest that did */
    bool is_running;
    bool has_unsynced_data; /* guest data was written since the last capture */
};

/* How to tell whether a cluster is the image's alone, or an internal snapshot's too, where flags do
 * not say it (qcow_l2_table_asks_counts). */
enum qcow_counts {
    QCOW_COUNTS_READ,   /* by its count, which may have to be read */
    QCOW_COUNTS_LOADED, /* by its count, if that is in memory; else it is taken for shared */
    QCOW_COUNTS_NONE,   /* not at all: nothing is to be changed, or it is known already */
};

struct qcow_image {
    struct block base;
    struct host_file *file; /* owned */
    struct block *backing;  /* owned; NULL: none */
    struct qcow_header header;
    struct qcow_entry_context context;
    uint64_t cluster_bytes;
    uint64_t subcluster_bytes;

    struct lock lock;
    struct lock_condition changed; /* a claim was removed, or a flush ended */
    struct qcow_claims claims GUARDED_BY(&lock);
    struct qcow_bitmap_tracker bitmaps GUARDED_BY(&lock);
    struct qcow_l1 l1 GUARDED_BY(&lock);
    struct qcow_l2_cache l2 GUARDED_BY(&lock);
    struct qcow_refcounts refcounts GUARDED_BY(&lock); /* loaded once it may be written */
    struct qcow_guard guard GUARDED_BY(&lock);
    struct qcow_allocator allocator GUARDED_BY(&lock);
    struct qcow_flush_state flush GUARDED_BY(&lock);
    struct qcow_hold *free_holds GUARDED_BY(&lock); /* owned; of planned requests that ended */
    bool is_corrupt GUARDED_BY(&lock); /* found while it was open: nothing is written any more */
};

static inline struct qcow_image *qcow_image_of(struct block *block)
{
    return CONTAINER_OF(block, struct qcow_image, base);
}

static inline uint64_t qcow_image_cluster_of(const struct qcow_image *image, uint64_t offset)
{
    return offset >> image->header.cluster_bits;
}

static inline uint64_t qcow_image_subcluster_of(const struct qcow_image *image, uint64_t offset)
{
    return offset >> image->context.subcluster_bits;
}

static inline uint64_t qcow_image_cluster_start(const struct qcow_image *image, uint64_t offset)
{
    return align_down(offset, image->cluster_bytes);
}

static inline uint64_t qcow_image_in_cluster(const struct qcow_image *image, uint64_t offset)
{
    return offset & (image->cluster_bytes - 1);
}

/* The claim on whole subclusters that covers [from, to). */
static inline struct qcow_claim qcow_image_claim(const struct qcow_image *image, uint64_t from,
                                                 uint64_t to, enum qcow_claim_mode mode)
{
    return (struct qcow_claim){.first = qcow_image_subcluster_of(image, from),
                               .last = qcow_image_subcluster_of(image, to - 1),
                               .mode = mode};
}

/* Waits until the claim conflicts with none. True when it had to wait: the lock was released
 * meanwhile, so what was looked up is stale. Does not add the claim. */
static inline bool qcow_image_wait_locked(struct qcow_image *image, const struct qcow_claim *wanted)
    REQUIRES(&image->lock)
{
    bool has_waited = false;

    while (qcow_claims_conflict(&image->claims, wanted)) {
        lock_condition_wait(&image->changed, &image->lock);
        has_waited = true;
    }
    return has_waited;
}

static inline void qcow_image_unclaim_locked(struct qcow_image *image, struct qcow_claim *claim)
    REQUIRES(&image->lock)
{
    qcow_claims_remove(&image->claims, claim);
    lock_condition_broadcast(&image->changed);
}

/* A corrupt image is not changed: what it would take for free may be in use. */
ERR_RESULT qcow_image_check_sound_locked(struct qcow_image *image) REQUIRES(&image->lock);

/* Marks the image corrupt, on disk too where its version can say so. Takes and gives the reason. */
ERR_RESULT qcow_image_corrupt_locked(struct qcow_image *image, struct err *reason)
    REQUIRES(&image->lock);

/* At least one and at most `wanted` adjacent host clusters, none of which is a table. */
ERR_RESULT qcow_image_take_locked(struct qcow_image *image, uint64_t wanted,
                                  struct qcow_run *out_run) REQUIRES(&image->lock);

/* Reads all tables anew, after the file was changed below them. No request is running and nothing
 * waits for a flush. If it fails, the image is read-only and has no bytes. */
ERR_RESULT qcow_image_reload(struct qcow_image *image);

#endif
