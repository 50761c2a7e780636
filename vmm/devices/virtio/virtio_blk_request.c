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
#include "base/cleanup.h"
#include "base/log.h"
#include "storage/block.h"
#include "storage/io_vector.h"

#define HEADER_BYTES  16u
#define SEGMENT_BYTES 16u /* of a discard or write-zeroes request */

/* Where the request's data is on the disk; false when it is not whole sectors inside it. */
static bool place(const struct virtio_blk_target *target, uint64_t sector, uint64_t len,
                  struct io_request *io)
{
    io->block = target->block;
    io->len = len;
    return len % VIRTIO_BLK_SECTOR_BYTES == 0 &&
           checked_mul(sector, VIRTIO_BLK_SECTOR_BYTES, &io->offset) &&
           range_is_within(io->offset, len, target->block->virtual_bytes);
}

static struct virtqueue_span data_of(const struct virtio_blk_slot *slot, uint32_t type)
{
    if (type == VIRTIO_BLK_T_IN)
        return (struct virtqueue_span){.part = VIRTQUEUE_WRITABLE,
                                       .len = slot->chain.writable_bytes - 1};
    return (struct virtqueue_span){.part = VIRTQUEUE_READABLE,
                                   .offset = HEADER_BYTES,
                                   .len = slot->chain.readable_bytes - HEADER_BYTES};
}

static uint8_t begin_transfer(const struct virtio_blk_target *target, struct virtio_blk_slot *slot,
                              uint32_t type, uint64_t sector)
{
    struct virtqueue_span span = data_of(slot, type);

    if (span.len == 0 || !place(target, sector, span.len, &slot->io))
        return VIRTIO_BLK_S_IOERR;
    slot->io.operation = type == VIRTIO_BLK_T_IN ? IO_READ : IO_WRITE;
    slot->io.iovs = slot->iovs;
    slot->io.iov_count =
        virtqueue_chain_span(target->queue, &slot->chain, span, slot->iovs, VIRTIO_REQUEST_IOVS);
    if (slot->io.iov_count == 0)
        return VIRTIO_BLK_S_IOERR;
    if (type == VIRTIO_BLK_T_OUT && target->zeroes != VIRTIO_BLK_ZEROES_OFF &&
        io_vector_is_zero(slot->iovs, slot->io.iov_count)) {
        slot->io.operation = IO_WRITE_ZEROES;
        slot->io.may_unmap = target->zeroes == VIRTIO_BLK_ZEROES_UNMAP;
    }
    return VIRTIO_BLK_S_OK;
}

/* Discard and write-zeroes: one segment each, as the configuration announces. */
static uint8_t begin_clear(const struct virtio_blk_target *target, struct virtio_blk_slot *slot,
                           uint32_t type)
{
    bool is_discard = type == VIRTIO_BLK_T_DISCARD;
    uint32_t sectors_max =
        is_discard ? VIRTIO_BLK_DISCARD_SECTORS_MAX : VIRTIO_BLK_ZERO_SECTORS_MAX;
    uint8_t segment[SEGMENT_BYTES];

    if (slot->chain.readable_bytes != HEADER_BYTES + SEGMENT_BYTES ||
        !virtqueue_chain_read(target->queue, &slot->chain, HEADER_BYTES, segment, sizeof(segment)))
        return VIRTIO_BLK_S_IOERR;
    struct reader in = reader_of(segment, sizeof(segment));
    uint64_t sector = reader_le64(&in);
    uint64_t sectors = reader_le32(&in);
    uint32_t flags = reader_le32(&in);

    /* virtio 1.2, 5.2.6.2: unknown flags, and "unmap" in a discard, are VIRTIO_BLK_S_UNSUPP. */
    if ((flags & ~(is_discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) != 0)
        return VIRTIO_BLK_S_UNSUPP;
    if (sectors > sectors_max ||
        !place(target, sector, sectors * VIRTIO_BLK_SECTOR_BYTES, &slot->io))
        return VIRTIO_BLK_S_IOERR;
    slot->io.operation = is_discard ? IO_DISCARD : IO_WRITE_ZEROES;
    slot->io.may_unmap = flags != 0;
    return VIRTIO_BLK_S_OK;
}

static uint8_t begin_flush(const struct virtio_blk_target *target, struct virtio_blk_slot *slot)
{
    slot->io.operation = IO_FLUSH;
    slot->io.block = target->block;
    slot->io.offset = 0;
    slot->io.len = 0;
    return VIRTIO_BLK_S_OK;
}

static uint8_t answer_get_id(const struct virtio_blk_target *target,
                             const struct virtio_blk_slot *slot)
{
    size_t len = (size_t)MIN(slot->chain.writable_bytes - 1, VIRTIO_BLK_SERIAL_BYTES);

    return virtqueue_chain_write(target->queue, &slot->chain, 0, target->serial, len)
               ? VIRTIO_BLK_S_OK
               : VIRTIO_BLK_S_IOERR;
}

bool virtio_blk_request_begin(const struct virtio_blk_target *target, struct virtio_blk_slot *slot)
{
    uint8_t header[HEADER_BYTES];

    slot->status = VIRTIO_BLK_S_IOERR;
    if (slot->chain.writable_bytes == 0 || /* nowhere to put a status */
        !virtqueue_chain_read(target->queue, &slot->chain, 0, header, sizeof(header)))
        return false;
    struct reader in = reader_of(header, sizeof(header));
    uint32_t type = reader_le32(&in);
    (void)reader_le32(&in);
    uint64_t sector = reader_le64(&in);

    switch (type) {
    case VIRTIO_BLK_T_IN: slot->status = begin_transfer(target, slot, type, sector); break;
    case VIRTIO_BLK_T_OUT:
        if (!target->block->is_read_only)
            slot->status = begin_transfer(target, slot, type, sector);
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        if (!target->block->is_read_only)
            slot->status = begin_clear(target, slot, type);
        break;
    case VIRTIO_BLK_T_FLUSH: slot->status = begin_flush(target, slot); break;
    case VIRTIO_BLK_T_GET_ID: slot->status = answer_get_id(target, slot); return false;
    default: slot->status = VIRTIO_BLK_S_UNSUPP; return false;
    }
    return slot->status == VIRTIO_BLK_S_OK;
}

void virtio_blk_request_end(const struct virtio_blk_target *target, struct virtio_blk_slot *slot)
{
    static const char *const names[] = {[IO_READ] = "read",
                                        [IO_WRITE] = "write",
                                        [IO_FLUSH] = "flush",
                                        [IO_WRITE_ZEROES] = "write-zeroes",
                                        [IO_DISCARD] = "discard"};

    /* A read that failed may have written a part. */
    if (slot->io.operation == IO_READ)
        virtqueue_chain_dirty(target->queue, &slot->chain, 0, slot->io.len);
    if (slot->io.err == NULL)
        return;
    log_guest("disk request failed", "disk=%.20s operation=%s error=\"%s\"", target->serial,
              names[slot->io.operation], err_message(slot->io.err));
    err_free(TAKE_PTR(slot->io.err));
    slot->status = VIRTIO_BLK_S_IOERR;
}

uint32_t virtio_blk_request_answer(const struct virtio_blk_target *target,
                                   const struct virtio_blk_slot *slot)
{
    const struct virtqueue_chain *chain = &slot->chain;

    if (chain->writable_bytes == 0)
        return 0;
    (void)virtqueue_chain_write(target->queue, chain, chain->writable_bytes - 1, &slot->status, 1);
    return (uint32_t)MIN(chain->writable_bytes, (uint64_t)UINT32_MAX);
}
