/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write.c - see qcow_write.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 *
 * A write into clusters that have no place of their own goes in four steps:
 *
 *   plan     under the lock: claim the clusters, make their L2 table, take host clusters
 *   fill     without it: write the data, with what surrounds it in its clusters, in one piece
 *   publish  under the lock: set the L2 entries, drop what they pointed to, give up the claim
 *   flush    later, and in this order: data and counts, barrier, L2 entries, barrier
 *
 * Whatever fails before publish gives the host clusters back: nothing has pointed to them yet.
 */
#include "storage/qcow/qcow_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_map.h"
#include "storage/qcow/qcow_read.h"

struct write_plan {
    struct qcow_claim claim;
    struct qcow_extent extent; /* what is there, for the bytes to be written */
    bool is_in_place;          /* the entries stay */
    bool is_taken;             /* `run` has to be given back on failure */
    struct qcow_run run;       /* where the clusters go */
};

/* The host clusters for an extent: its own where it kept some as zeros, else new ones. */
static struct err *place_locked(struct qcow_image *image, uint64_t offset, struct write_plan *plan)
    REQUIRES(&image->lock)
{
    const struct qcow_cluster *cluster = &plan->extent.cluster;
    uint64_t wanted = plan->claim.last - plan->claim.first + 1;

    if (cluster->kind == QCOW_CLUSTER_ZERO && cluster->is_copied) {
        plan->run = (struct qcow_run){.first = qcow_image_cluster_of(image, cluster->host_offset),
                                      .count = wanted};
        return NULL;
    }
    TRY(qcow_allocator_take(&image->allocator, wanted, &plan->run));
    plan->is_taken = true;
    if (plan->run.count < wanted) {
        uint64_t end = (plan->claim.first + plan->run.count) << image->header.cluster_bits;
        plan->claim.last = plan->claim.first + plan->run.count - 1;
        plan->extent.bytes = end - offset;
    }
    return NULL;
}

/* An extent without an L2 table can be longer than a slice; entries are set in one. */
static void limit_to_slice_locked(const struct qcow_image *image, uint64_t offset,
                                  struct qcow_extent *extent) REQUIRES(&image->lock)
{
    uint64_t reach = image->cluster_bytes << image->l2.slice_bits;

    extent->bytes = MIN(extent->bytes, reach - (offset & (reach - 1)));
}

static struct err *plan_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                               struct write_plan *plan) REQUIRES(&image->lock)
{
    do {
        *plan = (struct write_plan){.is_in_place = false};
        TRY(qcow_map_lookup_locked(image, offset, len, &plan->extent));
        limit_to_slice_locked(image, offset, &plan->extent);
        const struct qcow_cluster *cluster = &plan->extent.cluster;
        plan->is_in_place = cluster->kind == QCOW_CLUSTER_DATA && cluster->is_copied;
        plan->claim = (struct qcow_claim){
            .first = qcow_image_cluster_of(image, offset),
            .last = qcow_image_cluster_of(image, offset + plan->extent.bytes - 1),
            .mode = plan->is_in_place ? QCOW_CLAIM_SHARED : QCOW_CLAIM_EXCLUSIVE,
        };
    } while (qcow_image_wait_locked(image, &plan->claim));

    TRY(qcow_map_ensure_table_locked(image, offset));
    if (!plan->is_in_place)
        TRY(place_locked(image, offset, plan));
    qcow_claims_add(&image->claims, &plan->claim);
    return NULL;
}

/* Bytes of a new cluster that the guest does not write: copied from what it read until then. */
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
    /* Each gap lies in the first or in the last cluster, whose place follows from the extent's. */
    struct qcow_cluster cluster = plan->extent.cluster;
    if (cluster.kind == QCOW_CLUSTER_DATA)
        cluster.host_offset +=
            (qcow_image_cluster_of(image, offset) - plan->claim.first) * image->cluster_bytes;
    return qcow_read_extent(image, &cluster, &part, offset);
}

/* Fresh clusters read as zeros already, so around data in zeros nothing needs to be written. */
static bool needs_gaps(const struct qcow_image *image, const struct write_plan *plan)
{
    uint64_t start = plan->claim.first << image->header.cluster_bits;
    enum qcow_cluster_kind kind = plan->extent.cluster.kind;
    bool is_zero = kind == QCOW_CLUSTER_ZERO ||
                   (kind == QCOW_CLUSTER_UNALLOCATED && qcow_read_is_zero_below(image, start));

    return !(is_zero && plan->run.is_fresh);
}

static struct err *fill(struct qcow_image *image, const struct write_plan *plan,
                        const struct iovec *iovs, int iov_count, uint64_t skip, uint64_t offset)
{
    uint64_t start = plan->claim.first << image->header.cluster_bits;
    uint64_t end = (plan->claim.last + 1) << image->header.cluster_bits;
    uint64_t host = plan->run.first << image->header.cluster_bits;
    size_t head = (size_t)(offset - start);
    size_t tail = (size_t)(end - offset - plan->extent.bytes);
    struct io_vector all = {.count = 0};
    CLEANUP(cleanup_free) uint8_t *gaps = NULL;

    if (head + tail == 0 || !needs_gaps(image, plan)) {
        io_vector_append_slice(&all, iovs, iov_count, skip, plan->extent.bytes);
        return host_file_write(image->file, &all, host + head);
    }

    gaps = malloc(head + tail);
    if (gaps == NULL)
        return err_new(ERR_NO_MEMORY, "write '%s'", image->file->path);
    TRY(fill_gap(image, plan, start, gaps, head));
    TRY(fill_gap(image, plan, end - tail, gaps + head, tail));
    io_vector_append(&all, gaps, head);
    io_vector_append_slice(&all, iovs, iov_count, skip, plan->extent.bytes);
    io_vector_append(&all, gaps + head, tail);
    return host_file_write(image->file, &all, host);
}

static struct err *publish_locked(struct qcow_image *image, const struct write_plan *plan)
    REQUIRES(&image->lock)
{
    struct qcow_slice *slice;
    uint64_t *entries, count;
    uint64_t start = plan->claim.first << image->header.cluster_bits;
    uint64_t host = plan->run.first << image->header.cluster_bits;

    TRY(qcow_map_entries_locked(image, start, &slice, &entries, &count));
    ASSERT(count >= plan->run.count);
    for (uint64_t i = 0; i < plan->run.count; i++)
        qcow_map_replace_locked(image, slice, &entries[i],
                                qcow_l2_entry_of_data(host + (i << image->header.cluster_bits)));
    return NULL;
}

/* Writes the first part of the request that has one plan; gives its length. */
static struct err *write_part(struct qcow_image *image, const struct iovec *iovs, int iov_count,
                              uint64_t skip, uint64_t offset, uint64_t *inout_len)
{
    struct write_plan plan;
    struct io_vector part = {.count = 0};

    lock_acquire(&image->lock);
    struct err *err = plan_locked(image, offset, *inout_len, &plan);
    lock_release(&image->lock);
    if (err != NULL)
        return err;

    if (plan.is_in_place) {
        io_vector_append_slice(&part, iovs, iov_count, skip, plan.extent.bytes);
        err =
            host_file_write(image->file, &part,
                            plan.extent.cluster.host_offset + qcow_image_in_cluster(image, offset));
    } else {
        err = fill(image, &plan, iovs, iov_count, skip, offset);
    }

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
