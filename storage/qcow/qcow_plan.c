/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_plan.c - see qcow_plan.h.
 * Tested by: qcow_plan_test.c
 *
 * A plan looks things up like qcow_read and qcow_write do, and gives up where these would wait: for
 * a slice that is not in the cache, for a claim, for a count. What it found stays true until the
 * request has ended because of a shared claim on each extent of this file; the rest needs none.
 */
#include "storage/qcow/qcow_plan.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "storage/qcow/qcow_l2_table.h"
#include "storage/qcow/qcow_map.h"
#include "storage/qcow/qcow_read.h"

struct qcow_hold {
    struct block_hold base;
    struct qcow_hold *next; /* while it is free */
    struct qcow_claim claim;
    bool is_write;
};

struct request {
    struct qcow_image *image;
    enum block_request_kind kind;
    uint64_t offset;
    uint64_t len;
};

/* Would looking it up be without I/O? Snapshots make it ask for counts. */
static bool is_cached_locked(struct qcow_image *image, uint64_t offset) REQUIRES(&image->lock)
{
    struct qcow_l2_table table;

    if (image->header.snapshot_count > 0 && !image->base.is_read_only)
        return false;
    struct err *err = qcow_l2_table_find_locked(image, offset, &table);
    bool is_known = err == NULL;
    err_free(err); /* the blocking call says it again */
    if (!is_known || table.host_offset == 0)
        return is_known;
    uint64_t entries = (uint64_t)1 << qcow_entry_table_bits(&image->context);
    return qcow_l2_cache_has(&image->l2, table.l1_index,
                             qcow_image_cluster_of(image, offset) & (entries - 1));
}

static struct qcow_hold *hold_create_locked(struct qcow_image *image) REQUIRES(&image->lock)
{
    struct qcow_hold *hold = image->free_holds;

    if (hold != NULL)
        image->free_holds = hold->next;
    else
        hold = malloc(sizeof(*hold)); /* as many as there ever were at once */
    return hold;
}

/* Bytes of this file, under a claim. */
static bool add_data_locked(const struct request *request, const struct qcow_extent *extent,
                            struct block_plan *plan) REQUIRES(&request->image->lock)
{
    struct qcow_image *image = request->image;
    struct block_extent planned = {
        .file = image->file, .offset = extent->host_offset, .bytes = extent->bytes};

    if (image->base.is_read_only)
        return block_plan_add(plan, &planned);

    struct qcow_claim claim = qcow_image_claim(image, request->offset,
                                               request->offset + extent->bytes, QCOW_CLAIM_SHARED);
    if (plan->count == BLOCK_PLAN_EXTENTS || qcow_claims_conflict(&image->claims, &claim))
        return false;
    struct qcow_hold *hold = hold_create_locked(image);
    if (hold == NULL)
        return false;
    *hold = (struct qcow_hold){.base.holder = &image->base,
                               .claim = claim,
                               .is_write = request->kind == BLOCK_REQUEST_CHANGE};
    qcow_claims_add(&image->claims, &hold->claim);
    planned.hold = &hold->base;
    return block_plan_add(plan, &planned);
}

/* What this image does not hold, of a read. */
static bool add_below(const struct request *request, uint64_t len, struct block_plan *plan)
{
    struct qcow_image *image = request->image;
    uint64_t have = qcow_read_is_zero_below(image, request->offset)
                        ? 0
                        : MIN(len, image->backing->virtual_bytes - request->offset);

    if (have > 0 &&
        !block_plan_append(image->backing, BLOCK_REQUEST_READ, request->offset, have, plan))
        return false;
    return have == len || block_plan_add(plan, &(struct block_extent){.bytes = len - have});
}

/* A write would change the mapping, or must not happen, or is to make a flush. */
static bool may_write_locked(struct qcow_image *image, const struct qcow_extent *extent)
    REQUIRES(&image->lock)
{
    return extent->kind == QCOW_KIND_DATA && extent->is_copied && !image->is_corrupt &&
           !qcow_l2_cache_wants_flush(&image->l2);
}

/* Plans the first part of the request; its length, 0 when that can not be. */
static uint64_t plan_part(const struct request *request, struct block_plan *plan)
{
    struct qcow_image *image = request->image;
    struct qcow_extent extent = {.bytes = 0};
    bool is_planned = false;

    lock_acquire(&image->lock);
    struct err *err = is_cached_locked(image, request->offset)
                          ? qcow_map_lookup_locked(image, request->offset, request->len, &extent)
                          : NULL;
    if (err == NULL && extent.bytes > 0 && extent.kind == QCOW_KIND_DATA &&
        (request->kind == BLOCK_REQUEST_READ || may_write_locked(image, &extent)))
        is_planned = add_data_locked(request, &extent, plan);
    lock_release(&image->lock);
    bool is_known = err == NULL && extent.bytes > 0 && request->kind == BLOCK_REQUEST_READ;
    err_free(err); /* the blocking call says it again */

    if (is_known && extent.kind == QCOW_KIND_ZERO)
        is_planned = block_plan_add(plan, &(struct block_extent){.bytes = extent.bytes});
    else if (is_known && extent.kind == QCOW_KIND_UNALLOCATED)
        is_planned = add_below(request, extent.bytes, plan);
    return is_planned ? extent.bytes : 0;
}

bool qcow_plan(struct block *block, enum block_request_kind kind, uint64_t offset, uint64_t len,
               struct block_plan *plan)
{
    struct request request = {
        .image = qcow_image_of(block), .kind = kind, .offset = offset, .len = len};

    while (request.len > 0) {
        uint64_t part = plan_part(&request, plan);
        if (part == 0)
            return false;
        request.offset += part;
        request.len -= part;
    }
    return true;
}

void qcow_plan_end(struct block *block, struct block_hold *base, enum block_outcome outcome)
{
    struct qcow_image *image = qcow_image_of(block);
    struct qcow_hold *hold = CONTAINER_OF(base, struct qcow_hold, base);

    (void)outcome; /* bytes that were to be overwritten may have been either way */
    lock_acquire(&image->lock);
    image->flush.has_unsynced_data |= hold->is_write;
    qcow_image_unclaim_locked(image, &hold->claim);
    hold->next = image->free_holds;
    image->free_holds = hold;
    lock_release(&image->lock);
}

void qcow_plan_finish(struct qcow_image *image) LOCK_UNCHECKED
{
    while (image->free_holds != NULL) {
        struct qcow_hold *hold = image->free_holds;
        image->free_holds = hold->next;
        free(hold);
    }
}
