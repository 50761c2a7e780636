/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_read.c - see qcow_read.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 */
#include "storage/qcow/qcow_read.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "storage/qcow/qcow_compressed.h"

bool qcow_read_is_zero_below(const struct qcow_image *image, uint64_t offset)
{
    return image->backing == NULL || offset >= image->backing->virtual_bytes;
}

static struct err *read_compressed(struct qcow_image *image, const struct qcow_extent *extent,
                                   const struct io_vector *to, uint64_t offset)
{
    CLEANUP(cleanup_free) uint8_t *packed = malloc(extent->compressed_bytes);
    CLEANUP(cleanup_free) uint8_t *unpacked = malloc(image->cluster_bytes);
    if (packed == NULL || unpacked == NULL)
        return err_new(ERR_NO_MEMORY, "unpack a cluster of '%s'", image->file->path);

    TRY(host_file_read_bytes(image->file, packed, extent->compressed_bytes, extent->host_offset));
    struct err *err =
        qcow_compressed_unpack(image->header.compression, packed, extent->compressed_bytes,
                               unpacked, image->cluster_bytes);
    if (err != NULL)
        return err_wrap(err, "image '%s'", image->file->path);
    io_vector_scatter(to->iovs, to->count, unpacked + qcow_image_in_cluster(image, offset));
    return NULL;
}

struct err *qcow_read_extent(struct qcow_image *image, const struct qcow_extent *extent,
                             const struct io_vector *to, uint64_t offset)
{
    switch (extent->kind) {
    case QCOW_KIND_UNALLOCATED:
        return block_read_padded(image->backing, to->iovs, to->count, offset);
    case QCOW_KIND_ZERO: io_vector_zero(to->iovs, to->count); return NULL;
    case QCOW_KIND_DATA: return host_file_read(image->file, to, extent->host_offset);
    case QCOW_KIND_COMPRESSED: return read_compressed(image, extent, to, offset);
    }
    UNREACHABLE();
}

/* Looks up and, where bytes of this file are to be read, claims. */
static struct err *claim_extent(struct qcow_image *image, uint64_t offset, uint64_t len,
                                struct qcow_extent *out_extent, struct qcow_claim *out_claim,
                                bool *out_is_claimed)
{
    lock_acquire(&image->lock);
    for (;;) {
        struct err *err = qcow_map_lookup_locked(image, offset, len, QCOW_COUNTS_NONE, out_extent);
        bool has_bytes = err == NULL && (out_extent->kind == QCOW_KIND_DATA ||
                                         out_extent->kind == QCOW_KIND_COMPRESSED);
        if (!has_bytes || image->base.is_read_only) {
            lock_release(&image->lock);
            *out_is_claimed = false;
            return err;
        }
        *out_claim = qcow_image_claim(image, offset, offset + out_extent->bytes, QCOW_CLAIM_SHARED);
        if (!qcow_image_wait_locked(image, out_claim))
            break;
    }
    qcow_claims_add(&image->claims, out_claim);
    lock_release(&image->lock);
    *out_is_claimed = true;
    return NULL;
}

struct err *qcow_read(struct block *block, const struct iovec *iovs, int iov_count, uint64_t offset)
{
    struct qcow_image *image = qcow_image_of(block);
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_READ, iovs, iov_count, offset, &len));
    for (uint64_t done = 0; done < len;) {
        struct qcow_extent extent;
        struct qcow_claim claim;
        bool is_claimed = false;
        TRY(claim_extent(image, offset + done, len - done, &extent, &claim, &is_claimed));

        struct io_vector part = {.count = 0};
        io_vector_append_slice(&part, iovs, iov_count, done, extent.bytes);
        struct err *err = qcow_read_extent(image, &extent, &part, offset + done);
        if (is_claimed) {
            lock_acquire(&image->lock);
            qcow_image_unclaim_locked(image, &claim);
            lock_release(&image->lock);
        }
        if (err != NULL)
            return err;
        done += extent.bytes;
    }
    return NULL;
}
