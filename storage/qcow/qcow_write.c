/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write.c - see qcow_write.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
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
#include "storage/qcow/qcow_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_l2_table.h"
#include "storage/qcow/qcow_map.h"
#include "storage/qcow/qcow_read.h"

struct write_plan {
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

static uint64_t cluster_start(const struct qcow_image *image, uint64_t offset)
{
    return align_down(offset, image->cluster_bytes);
}

/* An extent without an L2 table can be longer than a slice; entries are changed in one. */
static void limit_to_slice_locked(const struct qcow_image *image, uint64_t offset,
                                  struct qcow_extent *extent) REQUIRES(&image->lock)
{
    uint64_t reach = image->cluster_bytes << image->l2.slice_bits;

    extent->bytes = MIN(extent->bytes, reach - (offset & (reach - 1)));
}

/* What to write and to claim, from what is there. */
static void outline(const struct qcow_image *image, struct write_plan *plan)
{
    const struct qcow_extent *extent = &plan->extent;
    bool is_packed = extent->kind == QCOW_KIND_COMPRESSED;
    bool has_place = !is_packed && extent->host_offset != 0;
    uint64_t end = plan->offset + extent->bytes;

    plan->is_in_place = extent->kind == QCOW_KIND_DATA && extent->is_copied;
    plan->is_moving = is_packed || (has_place && !extent->is_copied);
    uint64_t unit = plan->is_in_place ? 1
                    : is_packed       ? image->cluster_bytes
                                      : image->subcluster_bytes;
    plan->from = align_down(plan->offset, unit);
    plan->to = align_up(end, unit);
    plan->host = extent->host_offset - (plan->offset - plan->from);
    plan->claim =
        plan->is_moving
            ? qcow_image_claim(image, cluster_start(image, plan->offset),
                               align_up(end, image->cluster_bytes), QCOW_CLAIM_EXCLUSIVE)
            : qcow_image_claim(image, plan->from, plan->to,
                               plan->is_in_place ? QCOW_CLAIM_SHARED : QCOW_CLAIM_EXCLUSIVE);
}

/* Ends the plan with guest cluster boundary `end`, where the new clusters end. */
static void shorten(const struct qcow_image *image, struct write_plan *plan, uint64_t end)
{
    plan->extent.bytes = end - plan->offset;
    plan->to = end;
    plan->claim.last = qcow_image_subcluster_of(image, end - 1);
}

/* What an entry says; nothing when it became malformed since it was looked up. */
static struct qcow_cluster cluster_locked(struct qcow_image *image,
                                          const struct qcow_entries *entries, uint64_t index)
    REQUIRES(&image->lock)
{
    struct qcow_cluster cluster;

    ASSERT(index < entries->count);
    if (!qcow_map_cluster_locked(image, entries, index, &cluster))
        return (struct qcow_cluster){.data = 0};
    return cluster;
}

/* Gives extended entries their places, before there is data. */
static struct err *assign_locked(struct qcow_image *image, const struct write_plan *plan)
    REQUIRES(&image->lock)
{
    struct qcow_entries entries;

    TRY(qcow_map_entries_locked(image, plan->from, &entries));
    for (uint64_t i = 0; i < plan->run.count; i++) {
        struct qcow_cluster cluster = cluster_locked(image, &entries, i);
        cluster.host_offset = (plan->run.first + i) << image->header.cluster_bits;
        cluster.is_copied = true;
        qcow_map_replace_locked(image, &entries, i, &cluster);
    }
    return NULL;
}

/* New host clusters, as many as there are side by side. */
static struct err *place_locked(struct qcow_image *image, struct write_plan *plan)
    REQUIRES(&image->lock)
{
    uint64_t first = qcow_image_cluster_of(image, plan->from);
    uint64_t wanted = qcow_image_cluster_of(image, plan->to - 1) - first + 1;

    TRY(qcow_image_take_locked(image, wanted, &plan->run));
    if (plan->run.count < wanted)
        shorten(image, plan, (first + plan->run.count) << image->header.cluster_bits);
    plan->host =
        (plan->run.first << image->header.cluster_bits) + qcow_image_in_cluster(image, plan->from);
    if (plan->is_moving || !qcow_entry_is_extended(&image->context)) {
        plan->is_taken = true;
        return NULL;
    }
    struct err *err = assign_locked(image, plan);
    if (err != NULL)
        qcow_allocator_untake(&image->allocator, &plan->run);
    return err;
}

static struct err *plan_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                               struct write_plan *plan) REQUIRES(&image->lock)
{
    do {
        *plan = (struct write_plan){.offset = offset};
        TRY(qcow_map_lookup_locked(image, offset, len, &plan->extent));
        limit_to_slice_locked(image, offset, &plan->extent);
        outline(image, plan);
    } while (qcow_image_wait_locked(image, &plan->claim));

    TRY(qcow_image_check_sound_locked(image));
    TRY(qcow_l2_table_own_locked(image, offset));
    if (plan->is_moving || plan->extent.host_offset == 0)
        TRY(place_locked(image, plan));
    qcow_claims_add(&image->claims, &plan->claim);
    return NULL;
}

/* Bytes of a new subcluster that the guest does not write: copied from what it read until then. */
static struct err *fill_gap(struct qcow_image *image, const struct write_plan *plan,
                            uint64_t offset, uint8_t *buffer, size_t len)
{
    struct io_vector part = {.count = 0};
    uint64_t on_disk = image->base.virtual_bytes - MIN(offset, image->base.virtual_bytes);
    size_t inside = (size_t)MIN(len, on_disk);

    memset(buffer + inside, 0, len - inside);
    if (inside == 0)
        return NULL;
    io_vector_append(&part, buffer, inside);
    /* Each gap lies in the extent's first or last subcluster, so it is of the extent's kind. */
    struct qcow_extent extent = plan->extent;
    if (extent.kind == QCOW_KIND_DATA)
        extent.host_offset += offset - plan->offset;
    return qcow_read_extent(image, &extent, &part, offset);
}

/* Fresh clusters read as zeros already, so around data in zeros nothing needs to be written. */
static bool needs_gaps(const struct qcow_image *image, const struct write_plan *plan)
{
    enum qcow_kind kind = plan->extent.kind;
    bool is_zero = kind == QCOW_KIND_ZERO ||
                   (kind == QCOW_KIND_UNALLOCATED && qcow_read_is_zero_below(image, plan->from));

    return !(is_zero && plan->run.is_fresh);
}

/* Writes [from, to): the guest's bytes and the gaps around them. */
static struct err *fill(struct qcow_image *image, const struct write_plan *plan,
                        const struct iovec *iovs, int iov_count, uint64_t skip)
{
    size_t head = (size_t)(plan->offset - plan->from);
    size_t tail = (size_t)(plan->to - plan->offset - plan->extent.bytes);
    struct io_vector all = {.count = 0};
    CLEANUP(cleanup_free) uint8_t *gaps = NULL;

    if (head + tail == 0 || !needs_gaps(image, plan)) {
        io_vector_append_slice(&all, iovs, iov_count, skip, plan->extent.bytes);
        return host_file_write(image->file, &all, plan->host + head);
    }

    gaps = malloc(head + tail);
    if (gaps == NULL)
        return err_new(ERR_NO_MEMORY, "write '%s'", image->file->path);
    TRY(fill_gap(image, plan, plan->from, gaps, head));
    TRY(fill_gap(image, plan, plan->to - tail, gaps + head, tail));
    io_vector_append(&all, gaps, head);
    io_vector_append_slice(&all, iovs, iov_count, skip, plan->extent.bytes);
    io_vector_append(&all, gaps + head, tail);
    return host_file_write(image->file, &all, plan->host);
}

static struct err *copy_data(struct qcow_image *image, uint64_t from, uint64_t to, uint64_t len)
{
    CLEANUP(cleanup_free) uint8_t *buffer = malloc(len);
    if (buffer == NULL)
        return err_new(ERR_NO_MEMORY, "write '%s'", image->file->path);

    TRY(host_file_read_bytes(image->file, buffer, len, from));
    return host_file_write_bytes(image->file, buffer, len, to);
}

/* Takes the data of [from, to) along, subclusters of a moving cluster that are not written. */
static struct err *carry(struct qcow_image *image, const struct write_plan *plan, uint64_t from,
                         uint64_t to)
{
    struct qcow_extent extent;

    for (uint64_t at = from; at < to; at += extent.bytes) {
        lock_acquire(&image->lock);
        struct err *err = qcow_map_lookup_locked(image, at, to - at, &extent);
        lock_release(&image->lock);
        if (err == NULL && extent.kind == QCOW_KIND_DATA)
            err =
                copy_data(image, extent.host_offset, plan->host + (at - plan->from), extent.bytes);
        if (err != NULL)
            return err;
    }
    return NULL;
}

static struct err *carry_rest(struct qcow_image *image, const struct write_plan *plan)
{
    if (!plan->is_moving)
        return NULL;
    TRY(carry(image, plan, cluster_start(image, plan->from), plan->from));
    return carry(image, plan, plan->to, align_up(plan->to, image->cluster_bytes));
}

/* Which subclusters of the guest cluster at `start` does the plan write? */
static uint32_t written_mask(const struct qcow_image *image, const struct write_plan *plan,
                             uint64_t start)
{
    uint64_t from = MAX(plan->from, start), to = MIN(plan->to, start + image->cluster_bytes);
    unsigned first = (unsigned)((from - start) >> image->context.subcluster_bits);

    return qcow_subcluster_mask(first, (unsigned)((to - from) >> image->context.subcluster_bits));
}

static struct err *publish_locked(struct qcow_image *image, const struct write_plan *plan)
    REQUIRES(&image->lock)
{
    struct qcow_entries entries;
    uint64_t start = cluster_start(image, plan->from), index = 0;
    uint64_t host = plan->host - (plan->from - start);

    TRY(qcow_map_entries_locked(image, start, &entries));
    for (; start < plan->to; start += image->cluster_bytes, host += image->cluster_bytes) {
        struct qcow_cluster cluster = cluster_locked(image, &entries, index);
        if (cluster.is_compressed)
            cluster = (struct qcow_cluster){.data = 0};
        cluster.host_offset = host;
        cluster.is_copied = true;
        qcow_cluster_set_data(&cluster, written_mask(image, plan, start));
        qcow_map_replace_locked(image, &entries, index++, &cluster);
    }
    return NULL;
}

/* Writes the first part of the request that has one plan; gives its length. */
static struct err *write_part(struct qcow_image *image, const struct iovec *iovs, int iov_count,
                              uint64_t skip, uint64_t offset, uint64_t *inout_len)
{
    struct write_plan plan;

    lock_acquire(&image->lock);
    struct err *err = plan_locked(image, offset, *inout_len, &plan);
    lock_release(&image->lock);
    if (err != NULL)
        return err;

    err = fill(image, &plan, iovs, iov_count, skip);
    if (err == NULL)
        err = carry_rest(image, &plan);

    lock_acquire(&image->lock);
    if (err == NULL && !plan.is_in_place)
        err = publish_locked(image, &plan);
    if (err != NULL && plan.is_taken)
        qcow_allocator_untake(&image->allocator, &plan.run);
    image->flush.has_unsynced_data = true;
    qcow_image_unclaim_locked(image, &plan.claim);
    lock_release(&image->lock);
    *inout_len = plan.extent.bytes;
    return err;
}

struct err *qcow_write(struct block *block, const struct iovec *iovs, int iov_count,
                       uint64_t offset)
{
    struct qcow_image *image = qcow_image_of(block);
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_CHANGE, iovs, iov_count, offset, &len));
    for (uint64_t done = 0, part; done < len; done += part) {
        part = len - done;
        TRY(write_part(image, iovs, iov_count, done, offset + done, &part));
    }
    return qcow_flush_if_wanted(image);
}
