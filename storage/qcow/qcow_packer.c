/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_packer.c - see qcow_packer.h.
 */
#include "storage/qcow/qcow_packer.h"

#include "base/assert.h"
#include "base/checked_math.h"
#include "storage/qcow/qcow_flush.h"
#include "storage/qcow/qcow_image_internal.h"
#include "storage/qcow/qcow_l2_table.h"
#include "storage/qcow/qcow_map.h"

#define SECTOR_BYTES 512u

static uint64_t stream_bytes(size_t len)
{
    return align_up(len, SECTOR_BYTES);
}

bool qcow_packer_is_worth(struct block *block, size_t len)
{
    return len > 0 && stream_bytes(len) < qcow_image_of(block)->cluster_bytes;
}

static uint64_t count_max(const struct qcow_image *image)
{
    unsigned bits = 1u << image->header.refcount_order;

    return bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
}

/* Counts one more stream in the cluster that has room. False: its count has no room for it. */
static struct err *share_locked(struct qcow_image *image, uint64_t at, bool *out_is_shared)
    REQUIRES(&image->lock)
{
    uint64_t cluster = at >> image->header.cluster_bits, count = 0;

    TRY(qcow_refcounts_get(&image->refcounts, cluster, &count));
    *out_is_shared = count < count_max(image);
    return *out_is_shared ? qcow_refcounts_set(&image->refcounts, cluster, count + 1) : NULL;
}

/* An entry of a packed cluster has fewer bits for the place than others. */
static struct err *check_reach_locked(const struct qcow_image *image) REQUIRES(&image->lock)
{
    unsigned offset_bits = 62 - (image->header.cluster_bits - 8);
    uint64_t next = image->allocator.tail + 2;

    if (next >> (offset_bits - image->header.cluster_bits) != 0)
        return err_new(ERR_IO, "image '%s' is too large for compressed clusters",
                       image->file->path);
    return NULL;
}

/* Where a stream goes; what it touches is counted for it. */
static struct err *place_locked(struct qcow_image *image, struct qcow_packer *packer,
                                uint64_t bytes, uint64_t *out_at) REQUIRES(&image->lock)
{
    bool is_shared = false;
    struct qcow_run run = {.count = 0};

    TRY(check_reach_locked(image));
    if (packer->at < packer->end)
        TRY(share_locked(image, packer->at, &is_shared));
    if (is_shared && packer->at + bytes <= packer->end) {
        *out_at = packer->at;
        packer->at += bytes;
        return NULL;
    }
    struct err *err = qcow_image_take_locked(image, 1, &run);
    uint64_t start = run.first << image->header.cluster_bits;
    if (is_shared && (err != NULL || start != packer->end)) {
        qcow_allocator_drop(&image->allocator, packer->at, 1);
        is_shared = false;
    }
    if (err != NULL)
        return err;
    *out_at = is_shared ? packer->at : start;
    packer->at = *out_at + bytes;
    packer->end = start + image->cluster_bytes;
    return NULL;
}

static struct err *plan_locked(struct qcow_image *image, struct qcow_packer *packer,
                               struct qcow_claim *claim, uint64_t offset,
                               struct qcow_cluster *cluster) REQUIRES(&image->lock)
{
    (void)qcow_image_wait_locked(image, claim);
    TRY(qcow_l2_table_own_locked(image, offset));
    TRY(place_locked(image, packer, cluster->compressed_bytes, &cluster->host_offset));
    qcow_claims_add(&image->claims, claim);
    return NULL;
}

static struct err *fill(struct qcow_image *image, uint64_t at, const void *data, size_t len)
{
    static uint8_t zeroes[SECTOR_BYTES]; /* only ever read */
    struct io_vector vector = {.count = 0};

    io_vector_append(&vector, (void *)(uintptr_t)data, len);
    io_vector_append(&vector, zeroes, (size_t)stream_bytes(len) - len);
    return host_file_write(image->file, &vector, at);
}

static struct err *publish_locked(struct qcow_image *image, uint64_t offset,
                                  const struct qcow_cluster *cluster) REQUIRES(&image->lock)
{
    struct qcow_entries entries;

    TRY(qcow_map_entries_locked(image, offset, QCOW_COUNTS_NONE, &entries));
    qcow_map_replace_locked(image, &entries, 0, cluster);
    return NULL;
}

struct err *qcow_packer_write(struct qcow_packer *packer, struct block *block, uint64_t offset,
                              const void *data, size_t len)
{
    struct qcow_image *image = qcow_image_of(block);
    struct qcow_cluster cluster = {.is_compressed = true,
                                   .compressed_bytes = (uint32_t)stream_bytes(len)};
    struct qcow_claim claim =
        qcow_image_claim(image, offset, offset + image->cluster_bytes, QCOW_CLAIM_EXCLUSIVE);

    ASSERT(qcow_packer_is_worth(block, len) && qcow_image_in_cluster(image, offset) == 0);
    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, 1));
    lock_acquire(&image->lock);
    struct err *err = plan_locked(image, packer, &claim, offset, &cluster);
    lock_release(&image->lock);
    if (err != NULL)
        return err;

    err = fill(image, cluster.host_offset, data, len);
    lock_acquire(&image->lock);
    if (err == NULL)
        err = publish_locked(image, offset, &cluster);
    if (err != NULL)
        qcow_allocator_drop(&image->allocator, cluster.host_offset, cluster.compressed_bytes);
    image->flush.has_unsynced_data = true;
    qcow_image_unclaim_locked(image, &claim);
    lock_release(&image->lock);
    return err == NULL ? qcow_flush_if_wanted(image) : err;
}
