/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_zero.c - see qcow_zero.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 */
#include "storage/qcow/qcow_zero.h"

#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_l2_table.h"
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

/* A part of a subcluster: nothing to do where it reads as zeros already. */
static struct err *zero_part(struct qcow_image *image, uint64_t offset, uint64_t len)
{
    struct qcow_extent extent;

    if (len == 0)
        return NULL;
    lock_acquire(&image->lock);
    struct err *err = qcow_map_lookup_locked(image, offset, len, QCOW_COUNTS_NONE, &extent);
    lock_release(&image->lock);
    if (err != NULL)
        return err;

    bool is_zero = extent.kind == QCOW_KIND_ZERO ||
                   (extent.kind == QCOW_KIND_UNALLOCATED && qcow_read_is_zero_below(image, offset));
    return is_zero ? NULL : write_zero_data(image, offset, len);
}

/* How far a range goes of which nothing has to be said: there is no place and no data, and either
 * zeros show already or the content may stay. */
static struct err *skip_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                               enum qcow_zero_mode mode, uint64_t *out_len) REQUIRES(&image->lock)
{
    struct qcow_extent extent;

    TRY(qcow_map_lookup_locked(image, offset, len, QCOW_COUNTS_NONE, &extent));
    bool is_needed = extent.kind != QCOW_KIND_UNALLOCATED || extent.host_offset != 0 ||
                     (mode != QCOW_ZERO_DISCARD && image->context.has_backing);
    *out_len = is_needed ? 0 : extent.bytes;
    return NULL;
}

/* Gives up a place that holds no data, unless a writer is about to fill another part of it. */
static void drop_place_locked(struct qcow_image *image, uint64_t offset, enum qcow_zero_mode mode,
                              struct qcow_cluster *cluster) REQUIRES(&image->lock)
{
    uint64_t start = align_down(offset, image->cluster_bytes);
    struct qcow_claim whole =
        qcow_image_claim(image, start, start + image->cluster_bytes, QCOW_CLAIM_EXCLUSIVE);

    if (cluster->data != 0 || (mode == QCOW_ZERO_KEEP && cluster->is_copied) ||
        qcow_claims_conflict(&image->claims, &whole))
        return;
    cluster->host_offset = 0;
    cluster->is_copied = false;
}

/* Changes the entry of the cluster that holds [offset, end). *out_is_done is false when it can not
 * say it. */
static struct err *zero_entry_locked(struct qcow_image *image, uint64_t offset, uint64_t end,
                                     enum qcow_zero_mode mode, bool *out_is_done)
    REQUIRES(&image->lock)
{
    struct qcow_entries entries;
    struct qcow_cluster cluster;
    uint64_t in_cluster = qcow_image_in_cluster(image, offset);
    uint32_t mask =
        qcow_subcluster_mask((unsigned)(in_cluster >> image->context.subcluster_bits),
                             (unsigned)((end - offset) >> image->context.subcluster_bits));

    TRY(qcow_map_entries_locked(image, offset, QCOW_COUNTS_READ, &entries));
    if (!qcow_map_cluster_locked(image, &entries, 0, &cluster))
        return qcow_map_malformed(image, "L2 entry", offset);
    *out_is_done = qcow_cluster_zero(&cluster, &image->context, mask, mode);
    if (*out_is_done) {
        drop_place_locked(image, offset, mode, &cluster);
        qcow_map_replace_locked(image, &entries, 0, &cluster);
    }
    return NULL;
}

/* Changes entries from `offset` on. Gives the bytes that are done, and how many of the following
 * must be written as data (or left, if they are discarded). */
static struct err *zero_entries_locked(struct qcow_image *image, uint64_t offset, uint64_t end,
                                       enum qcow_zero_mode mode, uint64_t *out_done,
                                       uint64_t *out_refused) REQUIRES(&image->lock)
{
    uint64_t slice_bytes = image->cluster_bytes << image->l2.slice_bits;
    uint64_t at = offset, refused = 0;

    TRY(qcow_image_check_sound_locked(image));
    TRY(skip_locked(image, offset, end - offset, mode, out_done));
    if (*out_done > 0)
        return NULL;
    TRY(qcow_l2_table_own_locked(image, offset));
    end = MIN(end, align_down(offset, slice_bytes) + slice_bytes);
    while (at + refused < end) {
        uint64_t from = at + refused;
        uint64_t to = MIN(end, align_down(from, image->cluster_bytes) + image->cluster_bytes);
        bool is_done = false;
        TRY(zero_entry_locked(image, from, to, mode, &is_done));
        if (is_done && refused > 0)
            break;
        *(is_done ? &at : &refused) += to - from;
    }
    *out_done = at - offset;
    *out_refused = refused;
    return NULL;
}

/* Whole subclusters. Each turn waits until no I/O is in flight on any of them. */
static struct err *zero_subclusters(struct qcow_image *image, uint64_t offset, uint64_t end,
                                    enum qcow_zero_mode mode)
{
    while (offset < end) {
        uint64_t done = 0, refused = 0;
        struct qcow_claim claim = qcow_image_claim(image, offset, end, QCOW_CLAIM_EXCLUSIVE);

        lock_acquire(&image->lock);
        (void)qcow_image_wait_locked(image, &claim);
        struct err *err = zero_entries_locked(image, offset, end, mode, &done, &refused);
        lock_release(&image->lock);
        if (err != NULL)
            return err;

        offset += done;
        if (mode != QCOW_ZERO_DISCARD && offset < image->base.virtual_bytes)
            TRY(write_zero_data(image, offset, MIN(refused, image->base.virtual_bytes - offset)));
        offset += refused;
    }
    return NULL;
}

/* The whole subclusters of a range; those of the last cluster count as whole when the disk ends in
 * it. */
static void whole_subclusters(const struct qcow_image *image, uint64_t offset, uint64_t len,
                              uint64_t *out_first, uint64_t *out_end)
{
    uint64_t end = offset + len;

    *out_first = align_up(offset, image->subcluster_bytes);
    *out_end = end == image->base.virtual_bytes ? align_up(end, image->cluster_bytes)
                                                : align_down(end, image->subcluster_bytes);
}

struct err *qcow_write_zeroes(struct block *block, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct qcow_image *image = qcow_image_of(block);
    uint64_t first, end;

    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    whole_subclusters(image, offset, len, &first, &end);
    uint64_t head = MIN(len, first - offset);
    TRY(zero_part(image, offset, head));
    if (head == len)
        return qcow_flush_if_wanted(image);
    if (first < end)
        TRY(zero_subclusters(image, first, end, may_unmap ? QCOW_ZERO_UNMAP : QCOW_ZERO_KEEP));
    end = MAX(first, end);
    if (end < offset + len)
        TRY(zero_part(image, end, offset + len - end));
    return qcow_flush_if_wanted(image);
}

struct err *qcow_discard(struct block *block, uint64_t offset, uint64_t len)
{
    struct qcow_image *image = qcow_image_of(block);
    uint64_t first, end;

    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    whole_subclusters(image, offset, len, &first, &end);
    if (first < end)
        TRY(zero_subclusters(image, first, end, QCOW_ZERO_DISCARD));
    return qcow_flush_if_wanted(image);
}
