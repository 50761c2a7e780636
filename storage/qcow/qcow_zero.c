/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_zero.c - see qcow_zero.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 */
#include "storage/qcow/qcow_zero.h"

#include "base/limits.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_map.h"
#include "storage/qcow/qcow_read.h"
#include "storage/qcow/qcow_write.h"

#define ZERO_BUFFER_BYTES (64 * KIB)

/* Zeros as data, for parts of clusters and for what entries can not express. */
static struct err *write_zero_data(struct qcow_image *image, uint64_t offset, uint64_t len)
{
    static uint8_t zeroes[ZERO_BUFFER_BYTES]; /* only ever read */

    while (len > 0) {
        struct iovec iov = {zeroes, (size_t)MIN(len, ZERO_BUFFER_BYTES)};
        TRY(qcow_write(&image->base, &iov, 1, offset));
        offset += iov.iov_len;
        len -= iov.iov_len;
    }
    return NULL;
}

/* A part of a cluster: nothing to do where it reads as zeros already. */
static struct err *zero_part(struct qcow_image *image, uint64_t offset, uint64_t len)
{
    struct qcow_extent extent;

    if (len == 0)
        return NULL;
    lock_acquire(&image->lock);
    struct err *err = qcow_map_lookup_locked(image, offset, len, &extent);
    lock_release(&image->lock);
    if (err != NULL)
        return err;

    bool is_zero =
        extent.cluster.kind == QCOW_CLUSTER_ZERO ||
        (extent.cluster.kind == QCOW_CLUSTER_UNALLOCATED && qcow_read_is_zero_below(image, offset));
    return is_zero ? NULL : write_zero_data(image, offset, len);
}

/* How far a range goes of which nothing has to be said: there is no data, and either zeros show
 * already or the content may stay. */
static struct err *skip_locked(struct qcow_image *image, uint64_t offset, uint64_t clusters,
                               enum qcow_zero_mode mode, uint64_t *out_clusters)
    REQUIRES(&image->lock)
{
    struct qcow_extent extent;

    TRY(qcow_map_lookup_locked(image, offset, clusters << image->header.cluster_bits, &extent));
    bool is_needed = extent.cluster.kind != QCOW_CLUSTER_UNALLOCATED ||
                     (mode != QCOW_ZERO_DISCARD && image->context.has_backing);
    *out_clusters = is_needed ? 0 : extent.bytes >> image->header.cluster_bits;
    return NULL;
}

/* Changes the entries of one slice, from `offset` on. Gives the clusters that are done, and how
 * many of the following must be written as data (or left, if they are discarded). */
static struct err *zero_entries_locked(struct qcow_image *image, uint64_t offset, uint64_t clusters,
                                       enum qcow_zero_mode mode, uint64_t *out_done,
                                       uint64_t *out_refused) REQUIRES(&image->lock)
{
    struct qcow_slice *slice;
    uint64_t *entries, count;
    uint64_t done = 0, refused = 0;

    TRY(skip_locked(image, offset, clusters, mode, out_done));
    if (*out_done > 0)
        return NULL;
    TRY(qcow_map_ensure_table_locked(image, offset));
    TRY(qcow_map_entries_locked(image, offset, &slice, &entries, &count));
    while (done + refused < MIN(count, clusters)) {
        struct qcow_cluster cluster;
        uint64_t *entry = &entries[done + refused], new_entry;
        if (!qcow_l2_entry_decode(*entry, &image->context, &cluster))
            return err_new(ERR_INVALID,
                           "image '%s': an L2 entry is malformed; repair the image with 'qemu-img "
                           "check -r all'",
                           image->file->path);
        if (!qcow_l2_entry_zeroed(&cluster, &image->context, mode, &new_entry)) {
            refused++;
            continue;
        }
        if (refused > 0)
            break;
        qcow_map_replace_locked(image, slice, entry, new_entry);
        done++;
    }
    *out_done = done;
    *out_refused = refused;
    return NULL;
}

/* Whole clusters from `offset` on. Each turn waits until no I/O is in flight on any of them. */
static struct err *zero_clusters(struct qcow_image *image, uint64_t offset, uint64_t clusters,
                                 enum qcow_zero_mode mode)
{
    while (clusters > 0) {
        uint64_t done = 0, refused = 0;
        struct qcow_claim claim = {.first = qcow_image_cluster_of(image, offset),
                                   .last = qcow_image_cluster_of(image, offset) + clusters - 1,
                                   .mode = QCOW_CLAIM_EXCLUSIVE};

        lock_acquire(&image->lock);
        (void)qcow_image_wait_locked(image, &claim);
        struct err *err = zero_entries_locked(image, offset, clusters, mode, &done, &refused);
        lock_release(&image->lock);
        if (err != NULL)
            return err;

        offset += done << image->header.cluster_bits;
        uint64_t data_bytes = refused << image->header.cluster_bits;
        if (mode != QCOW_ZERO_DISCARD && offset < image->base.virtual_bytes)
            TRY(write_zero_data(image, offset,
                                MIN(data_bytes, image->base.virtual_bytes - offset)));
        offset += data_bytes;
        clusters -= done + refused;
    }
    return NULL;
}

/* The whole clusters of a range; the last one counts as whole when the disk ends in it. */
static void whole_clusters(const struct qcow_image *image, uint64_t offset, uint64_t len,
                           uint64_t *out_first, uint64_t *out_end)
{
    uint64_t end = offset + len;

    *out_first = align_up(offset, image->cluster_bytes);
    *out_end = end == image->base.virtual_bytes ? align_up(end, image->cluster_bytes)
                                                : align_down(end, image->cluster_bytes);
}

struct err *qcow_write_zeroes(struct block *block, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct qcow_image *image = qcow_image_of(block);
    uint64_t first, end;

    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    whole_clusters(image, offset, len, &first, &end);
    if (first >= end) {
        uint64_t head = MIN(len, first - offset);
        TRY(zero_part(image, offset, head));
        return zero_part(image, offset + head, len - head);
    }
    TRY(zero_part(image, offset, first - offset));
    TRY(zero_clusters(image, first, (end - first) >> image->header.cluster_bits,
                      may_unmap ? QCOW_ZERO_UNMAP : QCOW_ZERO_KEEP));
    if (end < offset + len)
        TRY(zero_part(image, end, offset + len - end));
    return qcow_flush_if_wanted(image);
}

struct err *qcow_discard(struct block *block, uint64_t offset, uint64_t len)
{
    struct qcow_image *image = qcow_image_of(block);
    uint64_t first, end;

    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    whole_clusters(image, offset, len, &first, &end);
    if (first < end)
        TRY(zero_clusters(image, first, (end - first) >> image->header.cluster_bits,
                          QCOW_ZERO_DISCARD));
    return qcow_flush_if_wanted(image);
}
