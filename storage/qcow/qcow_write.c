/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write.c - see qcow_write.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 *
 * How a write goes is told in qcow_write_plan.h; here is what moves bytes.
 */
#include "storage/qcow/qcow_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_map.h"
#include "storage/qcow/qcow_read.h"
#include "storage/qcow/qcow_write_plan.h"

/* Bytes of a new subcluster that the guest does not write: copied from what it read until then. */
static struct err *fill_gap(struct qcow_image *image, const struct qcow_write_plan *plan,
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

/* Writes [from, to): the guest's bytes and the gaps around them. */
static struct err *fill(struct qcow_image *image, const struct qcow_write_plan *plan,
                        const struct iovec *iovs, int iov_count, uint64_t skip)
{
    size_t head = (size_t)(plan->offset - plan->from);
    size_t tail = (size_t)(plan->to - plan->offset - plan->extent.bytes);
    struct io_vector all = {.count = 0};
    CLEANUP(cleanup_free) uint8_t *gaps = NULL;

    if (!qcow_write_plan_has_gaps(image, plan)) {
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
static struct err *carry(struct qcow_image *image, const struct qcow_write_plan *plan,
                         uint64_t from, uint64_t to)
{
    struct qcow_extent extent;

    for (uint64_t at = from; at < to; at += extent.bytes) {
        lock_acquire(&image->lock);
        struct err *err = qcow_map_lookup_locked(image, at, to - at, QCOW_COUNTS_NONE, &extent);
        lock_release(&image->lock);
        if (err == NULL && extent.kind == QCOW_KIND_DATA)
            err =
                copy_data(image, extent.host_offset, plan->host + (at - plan->from), extent.bytes);
        if (err != NULL)
            return err;
    }
    return NULL;
}

static struct err *carry_rest(struct qcow_image *image, const struct qcow_write_plan *plan)
{
    if (!plan->is_moving)
        return NULL;
    TRY(carry(image, plan, qcow_image_cluster_start(image, plan->from), plan->from));
    return carry(image, plan, plan->to, align_up(plan->to, image->cluster_bytes));
}

/* Writes the first part of the request that has one plan; gives its length. */
static struct err *write_part(struct qcow_image *image, const struct iovec *iovs, int iov_count,
                              uint64_t skip, uint64_t offset, uint64_t *inout_len)
{
    struct qcow_write_plan plan;

    lock_acquire(&image->lock);
    struct err *err = qcow_write_plan_locked(image, offset, *inout_len, &plan);
    lock_release(&image->lock);
    if (err != NULL)
        return err;

    err = fill(image, &plan, iovs, iov_count, skip);
    if (err == NULL)
        err = carry_rest(image, &plan);

    lock_acquire(&image->lock);
    if (err == NULL && !plan.is_in_place)
        err = qcow_write_plan_publish_locked(image, &plan);
    if (err != NULL)
        qcow_write_plan_give_back_locked(image, &plan);
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
