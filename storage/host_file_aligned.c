/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file_aligned.c - see host_file_aligned.h.
 *
 * How it works. A request is cut into pieces. What fills whole blocks and lies well in memory goes
 * straight on; the rest goes through a buffer of its own, a bounce:
 *
 *     block:      |        |        |        |        |
 *     request:         [===+========+========+==]
 *     pieces:          head| straight, or    |tail
 *                          | in bounces      |
 *
 * Writing a part of a block means to read it, change it and write all of it. Such a piece has its
 * blocks for itself (write_ranges.h), or it would put old bytes back over what another thread has
 * just written beside it. One that reaches past the end of the file would leave the file longer
 * than asked: it has everything from there on for itself, and cuts the file again.
 */
#include "storage/host_file_aligned.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/write_ranges.h"

#define BOUNCE_BYTES (128u * KIB)

struct aligned_file {
    struct host_file base;
    struct host_file *next; /* owned */
    struct host_file_alignment alignment;
    struct host_file_door door;
    struct write_ranges ranges;
};

struct piece {
    uint64_t offset;
    uint64_t len;
    uint64_t first; /* the blocks that hold it */
    uint64_t end;
    bool is_straight;
};

static struct aligned_file *self_of(struct host_file *file)
{
    return CONTAINER_OF(file, struct aligned_file, base);
}

/* Cuts the next piece off a request whose vectors, for exactly `len` bytes, are in `rest`. */
static struct piece cut(const struct aligned_file *self, const struct io_vector *rest,
                        uint64_t offset, uint64_t len)
{
    uint64_t block = self->alignment.offset;
    uint64_t start = align_down(offset, block);
    struct piece piece = {.offset = offset};

    if (host_file_is_aligned(self->alignment, rest->iovs, rest->count, offset)) {
        piece.len = len;
        piece.is_straight = true;
    } else if (align_up(offset + len, block) - start <= BOUNCE_BYTES) {
        piece.len = len;
    } else if (offset != start) {
        piece.len = start + block - offset;
    } else {
        struct io_vector middle = {.count = 0};
        uint64_t whole = align_down(len, block);
        io_vector_append_slice(&middle, rest->iovs, rest->count, 0, whole);
        piece.is_straight =
            host_file_is_aligned(self->alignment, middle.iovs, middle.count, offset);
        piece.len = piece.is_straight ? whole : MIN(whole, BOUNCE_BYTES);
    }
    piece.first = start;
    piece.end = align_up(offset + piece.len, block);
    return piece;
}

static struct err *bounce_create(const struct aligned_file *self, const struct piece *piece,
                                 uint8_t **out_bounce)
{
    size_t memory = MAX((size_t)self->alignment.memory, sizeof(void *));
    void *bounce = NULL;

    if (posix_memalign(&bounce, memory, (size_t)(piece->end - piece->first)) != 0)
        return err_new(ERR_NO_MEMORY, "a buffer for '%s'", self->base.path);
    *out_bounce = bounce;
    return NULL;
}

static struct err *read_bounced(struct aligned_file *self, const struct piece *piece,
                                const struct io_vector *to)
{
    CLEANUP(cleanup_free) uint8_t *bounce = NULL;

    TRY(bounce_create(self, piece, &bounce));
    TRY(host_file_read_bytes(self->next, bounce, (size_t)(piece->end - piece->first),
                             piece->first));
    io_vector_scatter(to->iovs, to->count, bounce + (piece->offset - piece->first));
    return NULL;
}

/* The first and the last block, as far as they are not overwritten as a whole. */
static struct err *read_edges(struct aligned_file *self, const struct piece *piece, uint8_t *bounce)
{
    uint64_t block = self->alignment.offset, last = piece->end - block;
    bool has_head = piece->offset != piece->first;
    bool has_tail = piece->offset + piece->len != piece->end;

    if (has_head)
        TRY(host_file_read_bytes(self->next, bounce, block, piece->first));
    if (has_tail && !(has_head && last == piece->first))
        TRY(host_file_read_bytes(self->next, bounce + (last - piece->first), block, last));
    return NULL;
}

/* The blocks are the caller's alone. */
static struct err *change_blocks(struct aligned_file *self, const struct piece *piece,
                                 const struct io_vector *from, uint64_t file_bytes)
{
    CLEANUP(cleanup_free) uint8_t *bounce = NULL;

    TRY(bounce_create(self, piece, &bounce));
    TRY(read_edges(self, piece, bounce));
    io_vector_gather(from->iovs, from->count, bounce + (piece->offset - piece->first));
    struct err *err = host_file_write_bytes(self->next, bounce, (size_t)(piece->end - piece->first),
                                            piece->first);
    uint64_t wanted = MAX(file_bytes, piece->offset + piece->len);
    if (err == NULL && piece->end > wanted)
        err = host_file_truncate(self->next, wanted);
    return err;
}

static struct err *write_part(struct aligned_file *self, const struct piece *piece,
                              const struct io_vector *from)
{
    struct write_range range = {.first = piece->first, .end = piece->end};

    for (;;) {
        uint64_t file_bytes = 0;
        write_ranges_begin_exclusive(&self->ranges, &range);
        struct err *err = host_file_size(self->next, &file_bytes);
        bool is_enough = piece->end <= file_bytes || range.end == UINT64_MAX;
        if (err == NULL && is_enough)
            err = change_blocks(self, piece, from, file_bytes);
        write_ranges_end(&self->ranges, &range);
        if (err != NULL || is_enough)
            return err;
        range.end = UINT64_MAX;
    }
}

static struct err *write_bounced(struct aligned_file *self, const struct piece *piece,
                                 const struct io_vector *from)
{
    CLEANUP(cleanup_free) uint8_t *bounce = NULL;

    TRY(bounce_create(self, piece, &bounce));
    io_vector_gather(from->iovs, from->count, bounce);
    struct write_range range = {.first = piece->first, .end = piece->end};
    write_ranges_begin(&self->ranges, &range);
    struct err *err = host_file_write_bytes(self->next, bounce, (size_t)piece->len, piece->first);
    write_ranges_end(&self->ranges, &range);
    return err;
}

static struct err *write_straight(struct aligned_file *self, const struct piece *piece,
                                  const struct io_vector *from)
{
    struct write_range range = {.first = piece->first, .end = piece->end};

    write_ranges_begin(&self->ranges, &range);
    struct err *err = host_file_write(self->next, from, piece->offset);
    write_ranges_end(&self->ranges, &range);
    return err;
}

static struct err *aligned_read(struct host_file *file, const struct io_vector *to, uint64_t offset)
{
    struct aligned_file *self = self_of(file);
    struct io_vector rest = *to;

    for (uint64_t len = io_vector_bytes(to->iovs, to->count); len > 0;) {
        struct piece piece = cut(self, &rest, offset, len);
        struct io_vector part = {.count = 0};
        io_vector_append_slice(&part, rest.iovs, rest.count, 0, piece.len);
        TRY(piece.is_straight ? host_file_read(self->next, &part, offset)
                              : read_bounced(self, &piece, &part));
        io_vector_advance(&rest, (size_t)piece.len);
        offset += piece.len;
        len -= piece.len;
    }
    return NULL;
}

static struct err *aligned_write(struct host_file *file, const struct io_vector *from,
                                 uint64_t offset)
{
    struct aligned_file *self = self_of(file);
    struct io_vector rest = *from;

    for (uint64_t len = io_vector_bytes(from->iovs, from->count); len > 0;) {
        struct piece piece = cut(self, &rest, offset, len);
        struct io_vector part = {.count = 0};
        io_vector_append_slice(&part, rest.iovs, rest.count, 0, piece.len);
        if (piece.is_straight)
            TRY(write_straight(self, &piece, &part));
        else if (piece.first == piece.offset && piece.end == piece.offset + piece.len)
            TRY(write_bounced(self, &piece, &part));
        else
            TRY(write_part(self, &piece, &part));
        io_vector_advance(&rest, (size_t)piece.len);
        offset += piece.len;
        len -= piece.len;
    }
    return NULL;
}

static struct err *aligned_sync(struct host_file *file)
{
    return host_file_sync(self_of(file)->next);
}

/* A writer that puts old bytes of the block back must not undo it. */
static struct err *aligned_punch(struct host_file *file, uint64_t offset, uint64_t len)
{
    struct aligned_file *self = self_of(file);
    struct write_range range = {.first = offset, .end = offset + len};

    if (len == 0)
        return NULL;
    write_ranges_begin(&self->ranges, &range);
    struct err *err = host_file_punch(self->next, offset, len);
    write_ranges_end(&self->ranges, &range);
    return err;
}

static struct err *aligned_allocate(struct host_file *file, uint64_t offset, uint64_t len)
{
    return host_file_allocate(self_of(file)->next, offset, len);
}

static struct err *aligned_truncate(struct host_file *file, uint64_t bytes)
{
    struct aligned_file *self = self_of(file);
    struct write_range range = {.first = align_down(bytes, self->alignment.offset),
                                .end = UINT64_MAX};

    write_ranges_begin_exclusive(&self->ranges, &range);
    struct err *err = host_file_truncate(self->next, bytes);
    write_ranges_end(&self->ranges, &range);
    return err;
}

static struct err *aligned_size(struct host_file *file, uint64_t *out_bytes)
{
    return host_file_size(self_of(file)->next, out_bytes);
}

static void aligned_destroy(struct host_file *file)
{
    struct aligned_file *self = self_of(file);

    host_file_destroy(self->next);
    write_ranges_finish(&self->ranges);
    free(self);
}

static const struct host_file_ops aligned_file_ops = {
    .name = "aligned",
    .read = aligned_read,
    .write = aligned_write,
    .sync = aligned_sync,
    .punch = aligned_punch,
    .allocate = aligned_allocate,
    .truncate = aligned_truncate,
    .size = aligned_size,
    .destroy = aligned_destroy,
};

struct err *host_file_aligned_create(struct host_file *next, struct host_file_alignment alignment,
                                     struct host_file **out_file)
{
    struct aligned_file *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        struct err *err = err_new(ERR_NO_MEMORY, "open '%s'", next->path);
        host_file_destroy(next);
        return err;
    }

    self->base.ops = &aligned_file_ops;
    self->base.path = next->path;
    self->next = next;
    self->alignment = alignment;
    write_ranges_init(&self->ranges);
    if (next->door != NULL) {
        self->door = *next->door;
        self->door.ranges = &self->ranges;
        self->base.door = &self->door;
    }
    *out_file = &self->base;
    return NULL;
}
