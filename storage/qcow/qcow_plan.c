/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_plan.c - see qcow_plan.h.
 * Tested by: qcow_plan_test.c; beside blocking calls, by the tests that ask QEMU's tools or cut the
 * power
 *
 * A plan looks things up like qcow_read and qcow_write do, and gives up where these would wait: for
 * a slice that is not in the cache, for a claim, for a count, for bytes to copy. What it found
 * stays true until the request has ended because of a claim on each extent of this file; the rest
 * needs none. A write of data that has no place gets one from the allocator's reserved run, and its
 * entries are changed when the request ends.
 */
#include "storage/qcow/qcow_plan.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "storage/qcow/qcow_l2_table.h"
#include "storage/qcow/qcow_map.h"
#include "storage/qcow/qcow_read.h"
#include "storage/qcow/qcow_write_plan.h"

struct qcow_hold {
    struct block_hold base;
    struct qcow_hold *next;  /* while it is free */
    struct qcow_claim claim; /* of a read */
    bool is_write;
    struct qcow_write_plan write; /* with its claim */
    struct qcow_slice *slice;     /* pinned for publishing; NULL: the write is in place */
};

struct request {
    uint64_t offset;
    uint64_t len;
};

/* Would looking it up be without I/O, but for counts? */
static bool is_cached_locked(struct qcow_image *image, uint64_t offset) REQUIRES(&image->lock)
{
    struct qcow_l2_table table;

    if (!qcow_l1_is_loaded(&image->l1))
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
static bool add_data_locked(struct qcow_image *image, const struct request *request,
                            const struct qcow_extent *extent, struct block_plan *plan)
    REQUIRES(&image->lock)
{
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
    *hold = (struct qcow_hold){.base.holder = &image->base, .claim = claim};
    qcow_claims_add(&image->claims, &hold->claim);
    planned.hold = &hold->base;
    return block_plan_add(plan, &planned);
}

static void hold_free_locked(struct qcow_image *image, struct qcow_hold *hold)
    REQUIRES(&image->lock)
{
    hold->next = image->free_holds;
    image->free_holds = hold;
}

/* The slice whose entries will change stays in memory, so that publishing can not fail. */
static bool pin_locked(struct qcow_image *image, struct qcow_hold *hold) REQUIRES(&image->lock)
{
    struct qcow_entries entries = {.slice = NULL};

    if (hold->write.is_in_place)
        return true;
    struct err *err = qcow_map_entries_locked(image, hold->write.from, QCOW_COUNTS_NONE, &entries);
    err_free(err); /* it is in the cache */
    if (entries.slice == NULL)
        return false;
    hold->slice = entries.slice;
    hold->slice->pins++;
    return true;
}

/* Whether the bytes have arrived or not. */
static void end_write_locked(struct qcow_image *image, struct qcow_hold *hold,
                             enum block_outcome outcome) REQUIRES(&image->lock)
{
    const struct qcow_write_plan *write = &hold->write;

    if (outcome == BLOCK_NOT_TRANSFERRED) {
        qcow_write_plan_give_back_locked(image, write);
    } else if (!write->is_in_place) {
        struct err *err = qcow_write_plan_publish_locked(image, write);
        ASSERT(err == NULL);
    }
    if (hold->slice != NULL)
        hold->slice->pins--;
    image->flush.has_unsynced_data = true;
    qcow_image_unclaim_locked(image, &hold->write.claim);
}

/* The first part of a write; its length, 0 when that can not be. */
static uint64_t add_write_locked(struct qcow_image *image, const struct request *request,
                                 struct block_plan *plan) REQUIRES(&image->lock)
{
    struct qcow_hold *hold;

    if (plan->count == BLOCK_PLAN_EXTENTS || qcow_l2_cache_wants_flush(&image->l2))
        return 0;
    hold = hold_create_locked(image);
    if (hold == NULL)
        return 0;
    *hold = (struct qcow_hold){.base.holder = &image->base, .is_write = true};
    if (!qcow_write_plan_try_locked(image, request->offset, request->len, &hold->write)) {
        hold_free_locked(image, hold);
        return 0;
    }
    const struct qcow_write_plan *write = &hold->write;
    struct block_extent planned = {.file = image->file,
                                   .offset = write->host + (write->offset - write->from),
                                   .bytes = write->extent.bytes,
                                   .hold = &hold->base};
    if (pin_locked(image, hold) && block_plan_add(plan, &planned))
        return planned.bytes;
    end_write_locked(image, hold, BLOCK_NOT_TRANSFERRED);
    hold_free_locked(image, hold);
    return 0;
}

/* What this image does not hold, of a read. */
static bool add_below(const struct qcow_image *image, const struct request *request, uint64_t len,
                      struct block_plan *plan)
{
    uint64_t have = qcow_read_is_zero_below(image, request->offset)
                        ? 0
                        : MIN(len, image->backing->virtual_bytes - request->offset);

    if (have > 0 &&
        !block_plan_append(image->backing, BLOCK_REQUEST_READ, request->offset, have, plan))
        return false;
    return have == len || block_plan_add(plan, &(struct block_extent){.bytes = len - have});
}

/* Plans the first part of a write; its length, 0 when that can not be. */
static uint64_t plan_write_part(struct qcow_image *image, const struct request *request,
                                struct block_plan *plan)
{
    lock_acquire(&image->lock);
    uint64_t bytes =
        is_cached_locked(image, request->offset) ? add_write_locked(image, request, plan) : 0;
    lock_release(&image->lock);
    return bytes;
}

/* Plans the first part of a read; its length, 0 when that can not be. */
static uint64_t plan_read_part(struct qcow_image *image, const struct request *request,
                               struct block_plan *plan)
{
    struct qcow_extent extent = {.bytes = 0};
    bool is_planned = false;

    lock_acquire(&image->lock);
    struct err *err = is_cached_locked(image, request->offset)
                          ? qcow_map_lookup_locked(image, request->offset, request->len,
                                                   QCOW_COUNTS_NONE, &extent)
                          : NULL;
    bool is_known = err == NULL && extent.bytes > 0;
    if (is_known && extent.kind == QCOW_KIND_DATA)
        is_planned = add_data_locked(image, request, &extent, plan);
    lock_release(&image->lock);
    err_free(err); /* the blocking call says it again */

    if (is_known && extent.kind == QCOW_KIND_ZERO)
        is_planned = block_plan_add(plan, &(struct block_extent){.bytes = extent.bytes});
    else if (is_known && extent.kind == QCOW_KIND_UNALLOCATED)
        is_planned = add_below(image, request, extent.bytes, plan);
    return is_planned ? extent.bytes : 0;
}

bool qcow_plan(struct block *block, enum block_request_kind kind, uint64_t offset, uint64_t len,
               struct block_plan *plan)
{
    struct qcow_image *image = qcow_image_of(block);
    struct request request = {.offset = offset, .len = len};

    while (request.len > 0) {
        uint64_t part = kind == BLOCK_REQUEST_READ ? plan_read_part(image, &request, plan)
                                                   : plan_write_part(image, &request, plan);
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

    lock_acquire(&image->lock);
    if (hold->is_write)
        end_write_locked(image, hold, outcome);
    else
        qcow_image_unclaim_locked(image, &hold->claim);
    hold_free_locked(image, hold);
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
