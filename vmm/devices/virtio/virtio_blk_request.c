/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_request.c - header, data, status: what a driver asks of a disk.
 *
 * Tested by: virtio_blk_test.c.
 *
 *     readable:  type, reserved, sector (16 bytes) | data to write
 *     writable:  data read | status (the last byte)
 */
#include "vmm/devices/virtio/virtio_blk_request.h"

#include <linux/virtio_blk.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/log.h"
#include "storage/block.h"

#define HEADER_BYTES  16u
#define SEGMENT_BYTES 16u /* of a discard or write-zeroes request */

struct request {
    const struct virtio_blk_target *target;
    const struct virtqueue_chain *chain;
    struct iovec *iovs;
    uint32_t type;
    uint64_t sector;
};

static uint8_t status_of(const struct request *request, struct err *err, const char *operation)
{
    if (err == NULL)
        return VIRTIO_BLK_S_OK;
    log_guest("disk request failed", "disk=%.20s operation=%s error=\"%s\"",
              request->target->serial, operation, err_message(err));
    err_free(err);
    return VIRTIO_BLK_S_IOERR;
}

/* Where the request's data is on the disk; false when it is not whole sectors inside it. */
static bool place(const struct request *request, uint64_t len, uint64_t *out_offset)
{
    uint64_t bytes = request->target->block->virtual_bytes;

    return len % VIRTIO_BLK_SECTOR_BYTES == 0 &&
           checked_mul(request->sector, VIRTIO_BLK_SECTOR_BYTES, out_offset) &&
           range_is_within(*out_offset, len, bytes);
}

static uint8_t execute_read(const struct request *request)
{
    struct virtqueue_span span = {.part = VIRTQUEUE_WRITABLE,
                                  .len = request->chain->writable_bytes - 1};
    uint64_t offset;

    if (span.len == 0 || !place(request, span.len, &offset))
        return VIRTIO_BLK_S_IOERR;
    int count = virtqueue_chain_span(request->target->queue, request->chain, span, request->iovs,
                                     VIRTIO_REQUEST_IOVS);
    if (count == 0)
        return VIRTIO_BLK_S_IOERR;
    uint8_t status = status_of(
        request, block_read(request->target->block, request->iovs, count, offset), "read");
    /* A read that failed may have written a part. */
    virtqueue_chain_dirty(request->target->queue, request->chain, 0, span.len);
    return status;
}

static uint8_t execute_write(const struct request *request)
{
    struct virtqueue_span span = {.part = VIRTQUEUE_READABLE,
                                  .offset = HEADER_BYTES,
                                  .len = request->chain->readable_bytes - HEADER_BYTES};
    uint64_t offset;

    if (span.len == 0 || !place(request, span.len, &offset))
        return VIRTIO_BLK_S_IOERR;
    int count = virtqueue_chain_span(request->target->queue, request->chain, span, request->iovs,
                                     VIRTIO_REQUEST_IOVS);
    if (count == 0)
        return VIRTIO_BLK_S_IOERR;
    return status_of(request, block_write(request->target->block, request->iovs, count, offset),
                     "write");
}

static uint8_t execute_get_id(const struct request *request)
{
    const struct virtio_blk_target *target = request->target;
    size_t len = (size_t)MIN(request->chain->writable_bytes - 1, sizeof(target->serial));

    return virtqueue_chain_write(target->queue, request->chain, 0, target->serial, len)
               ? VIRTIO_BLK_S_OK
               : VIRTIO_BLK_S_IOERR;
}

/* Discard and write-zeroes: one segment each, as the configuration announces. */
static uint8_t execute_clear(struct request *request)
{
    bool is_discard = request->type == VIRTIO_BLK_T_DISCARD;
    uint32_t sectors_max =
        is_discard ? VIRTIO_BLK_DISCARD_SECTORS_MAX : VIRTIO_BLK_ZERO_SECTORS_MAX;
    uint8_t segment[SEGMENT_BYTES];
    struct block *block = request->target->block;
    uint64_t offset;

    if (request->chain->readable_bytes != HEADER_BYTES + SEGMENT_BYTES ||
        !virtqueue_chain_read(request->target->queue, request->chain, HEADER_BYTES, segment,
                              sizeof(segment)))
        return VIRTIO_BLK_S_IOERR;
    struct reader in = reader_of(segment, sizeof(segment));
    request->sector = reader_le64(&in);
    uint64_t sectors = reader_le32(&in);
    uint32_t flags = reader_le32(&in);

    /* virtio 1.2, 5.2.6.2: unknown flags, and "unmap" in a discard, are VIRTIO_BLK_S_UNSUPP. */
    if ((flags & ~(is_discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) != 0)
        return VIRTIO_BLK_S_UNSUPP;
    uint64_t len = sectors * VIRTIO_BLK_SECTOR_BYTES;
    if (sectors > sectors_max || !place(request, len, &offset))
        return VIRTIO_BLK_S_IOERR;
    if (is_discard)
        return status_of(request, block_discard(block, offset, len), "discard");
    return status_of(request, block_write_zeroes(block, offset, len, flags != 0), "write-zeroes");
}

static uint8_t execute(struct request *request)
{
    switch (request->type) {
    case VIRTIO_BLK_T_IN: return execute_read(request);
    case VIRTIO_BLK_T_GET_ID: return execute_get_id(request);
    case VIRTIO_BLK_T_OUT:
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        if (request->target->block->is_read_only)
            return VIRTIO_BLK_S_IOERR;
        return request->type == VIRTIO_BLK_T_OUT ? execute_write(request) : execute_clear(request);
    case VIRTIO_BLK_T_FLUSH:
        return status_of(request, block_flush(request->target->block), "flush");
    default: return VIRTIO_BLK_S_UNSUPP;
    }
}

uint32_t virtio_blk_request_execute(const struct virtio_blk_target *target,
                                    const struct virtqueue_chain *chain,
                                    struct iovec iovs[VIRTIO_REQUEST_IOVS])
{
    struct request request = {.target = target, .chain = chain, .iovs = iovs};
    uint8_t header[HEADER_BYTES];
    uint8_t status = VIRTIO_BLK_S_IOERR;

    if (chain->writable_bytes == 0)
        return 0; /* nowhere to put a status */
    if (virtqueue_chain_read(target->queue, chain, 0, header, sizeof(header))) {
        struct reader in = reader_of(header, sizeof(header));
        request.type = reader_le32(&in);
        (void)reader_le32(&in);
        request.sector = reader_le64(&in);
        status = execute(&request);
    }
    (void)virtqueue_chain_write(target->queue, chain, chain->writable_bytes - 1, &status, 1);
    return (uint32_t)MIN(chain->writable_bytes, (uint64_t)UINT32_MAX);
}
