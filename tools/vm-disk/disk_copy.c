/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_copy.c - see disk_copy.h. Tested by: tests/disk
 *
 * How it works. The loop walks the source's map and cuts what holds data into pieces. Worker
 * threads read the pieces, look for zeros in them and compress what is to be compressed; the loop
 * writes them in the order of their offsets, so the new image comes out the same whoever was
 * quickest.
 *
 *   free -> (loop: next piece of data) -> todo queue -> worker -> done -> (loop: write) -> free
 *
 * There are a few more pieces than workers, as a ring: the loop waits for the oldest one.
 */
#include "tools/vm-disk/disk_copy.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bounded_queue.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/thread.h"
#include "storage/qcow/qcow_compressed.h"
#include "storage/qcow/qcow_packer.h"
#include "tools/vm-disk/disk_progress.h"

#define PIECE_BYTES     (2 * MIB)
#define UNIT_BYTES_MIN  ((uint64_t)512)
#define PIECE_UNITS_MAX (PIECE_BYTES / UNIT_BYTES_MIN)
#define PIECES_MAX      ((size_t)2 * DISK_COPY_THREADS_MAX)

/* What becomes of a unit; else the length of its compressed stream. */
enum { UNIT_ZERO = 0, UNIT_PLAIN = UINT32_MAX };

struct piece {
    uint64_t offset;
    size_t bytes;
    uint8_t *data;    /* owned; PIECE_BYTES */
    uint8_t *streams; /* owned; the same, each unit's at its place; NULL: nothing is compressed */
    uint32_t units[PIECE_UNITS_MAX];
    struct err *err;
    bool is_done; /* under the work's lock */
};

struct work {
    const struct disk_copy *copy;
    struct bounded_queue *todo; /* owned */
    struct lock lock;
    struct lock_condition done; /* a piece is */
    struct thread *threads[DISK_COPY_THREADS_MAX];
    unsigned thread_count;
    struct piece *pieces[PIECES_MAX]; /* owned; a ring */
    unsigned piece_count;
    uint64_t submitted, finished; /* pieces since the start */
    struct qcow_packer packer;
    struct disk_copy_result result;
};

static bool is_all_zero(const uint8_t *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static struct err *pack_unit(const struct disk_copy *copy, struct piece *piece, size_t at,
                             uint32_t *out_unit)
{
    size_t unit = (size_t)copy->unit_bytes, len = 0;

    TRY(qcow_compressed_pack(copy->compression, piece->data + at, unit, piece->streams + at, unit,
                             &len));
    *out_unit = qcow_packer_is_worth(copy->target, len) ? (uint32_t)len : UNIT_PLAIN;
    return NULL;
}

static struct err *fill(const struct disk_copy *copy, struct piece *piece)
{
    struct iovec iov = {piece->data, piece->bytes};
    size_t unit = (size_t)copy->unit_bytes;

    TRY(block_read(copy->source->top.block, &iov, 1, piece->offset));
    /* Behind the end of the disk its last cluster is zeros. */
    memset(piece->data + piece->bytes, 0, align_up(piece->bytes, unit) - piece->bytes);
    for (size_t at = 0, i = 0; at < piece->bytes; at += unit, i++) {
        piece->units[i] = is_all_zero(piece->data + at, unit) ? UNIT_ZERO : UNIT_PLAIN;
        if (copy->is_packing && piece->units[i] != UNIT_ZERO)
            TRY(pack_unit(copy, piece, at, &piece->units[i]));
    }
    return NULL;
}

static void worker_main(void *argument)
{
    struct work *work = argument;
    struct piece *piece;

    while ((piece = bounded_queue_pop(work->todo)) != NULL) {
        piece->err = fill(work->copy, piece);
        lock_acquire(&work->lock);
        piece->is_done = true;
        lock_condition_signal(&work->done);
        lock_release(&work->lock);
    }
}

static struct err *write_run(struct work *work, const struct piece *piece, size_t from, size_t to)
{
    struct iovec iov = {piece->data + from, to - from};

    work->result.data_bytes += to - from;
    return block_write(work->copy->target, &iov, 1, piece->offset + from);
}

static struct err *write_stream(struct work *work, const struct piece *piece, size_t at, size_t len)
{
    work->result.data_bytes += work->copy->unit_bytes;
    work->result.packed_bytes += work->copy->unit_bytes;
    work->result.stream_bytes += len;
    return qcow_packer_write(&work->packer, work->copy->target, piece->offset + at,
                             piece->streams + at, len);
}

/* Runs of plain units, and streams one by one. */
static struct err *write_piece(struct work *work, const struct piece *piece)
{
    size_t unit = (size_t)work->copy->unit_bytes;

    for (size_t from = 0; from < piece->bytes;) {
        size_t to = from;
        while (to < piece->bytes && piece->units[to / unit] == UNIT_PLAIN)
            to = MIN(to + unit, piece->bytes);
        if (to > from)
            TRY(write_run(work, piece, from, to));
        else if (piece->units[from / unit] != UNIT_ZERO)
            TRY(write_stream(work, piece, from, piece->units[from / unit]));
        from = to > from ? to : from + unit;
    }
    return NULL;
}

/* Waits for the oldest piece and writes it. */
static struct err *finish_oldest(struct work *work)
{
    struct piece *piece = work->pieces[work->finished % work->piece_count];

    lock_acquire(&work->lock);
    while (!piece->is_done)
        lock_condition_wait(&work->done, &work->lock);
    lock_release(&work->lock);
    work->finished++;
    if (piece->err != NULL)
        return TAKE_PTR(piece->err);
    TRY(write_piece(work, piece));
    return disk_progress_at(work->copy->progress, piece->offset + piece->bytes);
}

static struct err *submit(struct work *work, uint64_t offset, uint64_t bytes)
{
    if (work->submitted - work->finished == work->piece_count)
        TRY(finish_oldest(work));
    struct piece *piece = work->pieces[work->submitted % work->piece_count];

    piece->offset = offset;
    piece->bytes = (size_t)bytes;
    piece->is_done = false;
    ASSERT(bounded_queue_push(work->todo, piece));
    work->submitted++;
    return NULL;
}

/* Pieces are aligned, so that units of the target are whole in them. */
static struct err *copy_all(struct work *work)
{
    uint64_t end = work->copy->target->virtual_bytes;

    for (uint64_t at = 0; at < end;) {
        struct image_extent extent;
        TRY(disk_progress_at(work->copy->progress, at));
        TRY(image_chain_map(work->copy->source, at, end - at, &extent));
        if (extent.kind != IMAGE_EXTENT_DATA) {
            at += extent.bytes;
            continue;
        }
        uint64_t from = align_down(at, work->copy->unit_bytes);
        uint64_t to = MIN(end, align_down(at, PIECE_BYTES) + PIECE_BYTES);
        TRY(submit(work, from, to - from));
        at = to;
    }
    while (work->finished < work->submitted)
        TRY(finish_oldest(work));
    return NULL;
}

static struct err *add_piece(struct work *work)
{
    struct piece *piece = calloc(1, sizeof(*piece));
    if (piece == NULL)
        return err_new(ERR_NO_MEMORY, "copy an image");
    work->pieces[work->piece_count++] = piece;
    piece->data = malloc(PIECE_BYTES);
    if (work->copy->is_packing)
        piece->streams = malloc(PIECE_BYTES);
    if (piece->data == NULL || (work->copy->is_packing && piece->streams == NULL))
        return err_new(ERR_NO_MEMORY, "copy an image");
    return NULL;
}

static struct err *start(struct work *work)
{
    unsigned wanted = MIN(MAX(work->copy->thread_count, 1u), DISK_COPY_THREADS_MAX);

    TRY(bounded_queue_create(PIECES_MAX, &work->todo));
    for (unsigned i = 0; i < 2 * wanted; i++)
        TRY(add_piece(work));
    for (; work->thread_count < wanted; work->thread_count++)
        TRY(thread_create(ROLE_WORKER, work->thread_count, worker_main, work,
                          &work->threads[work->thread_count]));
    return NULL;
}

static void finish(struct work *work)
{
    if (work->todo != NULL)
        bounded_queue_close(work->todo);
    for (unsigned i = 0; i < work->thread_count; i++)
        thread_join(work->threads[i]);
    bounded_queue_destroy(work->todo);
    for (unsigned i = 0; i < work->piece_count; i++) {
        err_free(work->pieces[i]->err);
        free(work->pieces[i]->data);
        free(work->pieces[i]->streams);
        free(work->pieces[i]);
    }
    lock_condition_finish(&work->done);
    lock_finish(&work->lock);
}

struct err *disk_copy_run(const struct disk_copy *copy, struct disk_copy_result *out_result)
{
    struct work work = {.copy = copy};

    ASSERT(is_power_of_two(copy->unit_bytes) && copy->unit_bytes >= UNIT_BYTES_MIN &&
           copy->unit_bytes <= PIECE_BYTES);
    lock_init(&work.lock, LOCK_COPY);
    lock_condition_init(&work.done);
    struct err *err = start(&work);
    if (err == NULL)
        err = copy_all(&work);
    finish(&work);
    if (err == NULL)
        *out_result = work.result;
    return err;
}
