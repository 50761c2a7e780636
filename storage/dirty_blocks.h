/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty_blocks.h - which parts of a disk changed since they were last copied, in a file.
 *
 * The file has two bitmaps: what changed, and what a copy that has begun still has to take. The
 * machine's process marks a part before it writes there, in a shared mapping, so whatever kills
 * that process, no change is missed. What a power cut of the host leaves of the file is not
 * trusted: unless it was closed in order, or is used in the same boot, everything counts as
 * changed. Likewise when it belongs to another image or size: after a restore, for example.
 *
 *     machine:  open -> (enter, the write, leave)... -> close
 *     copier:   begin (by whoever has it open for a machine) -> next, copy, make durable, done ->
 * ...
 *
 * begin moves the changes over and waits until the writes that were under way have arrived; a part
 * that is written later is marked anew. A copy that ends early loses nothing: what was not done is
 * there for the next one. docs/formats/dirty-blocks.md has the format.
 * Thread: any, several at once, but for open and close.
 */
#ifndef STORAGE_DIRTY_BLOCKS_H
#define STORAGE_DIRTY_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct dirty_blocks;

/* What the machine writes to. */
struct dirty_blocks_image {
    const char *path;
    uint64_t virtual_bytes;
    int64_t modified_ns; /* before it was opened for writing: has anybody else written to it? */
};

/* 0: it can not be looked at. */
int64_t dirty_blocks_modified_ns(const char *image_path);

/* For the one who writes to the disk: creates the file when there is none, everything changed.
 * ERR_DENIED: somebody else has it open like that; ERR_INVALID: the file is something else. */
ERR_RESULT dirty_blocks_open(const char *path, const struct dirty_blocks_image *image,
                             struct dirty_blocks **out_blocks);

/* For who copies, beside a machine or without one. ERR_NOT_FOUND: there is no such file. */
ERR_RESULT dirty_blocks_attach(const char *path, struct dirty_blocks **out_blocks);

/* After the image was closed. Says in the file, durably, that it can be trusted as long as nobody
 * changes the image. */
ERR_RESULT dirty_blocks_close(struct dirty_blocks *blocks);

/* The machine goes on in another image, with the same content. Waits for no disk. */
ERR_RESULT dirty_blocks_set_image(struct dirty_blocks *blocks, const char *image);

/* Around each change of the disk; len may be 0. leave takes what enter gave. */
unsigned dirty_blocks_enter(struct dirty_blocks *blocks, uint64_t offset, uint64_t len);
void dirty_blocks_leave(struct dirty_blocks *blocks, unsigned ticket);

/* All changes until here become the copy's. ERR_TIMEOUT: writes do not come to an end; nothing is
 * lost. ERR_DENIED: attached, and a machine has it open, which must be asked. */
ERR_RESULT dirty_blocks_begin(struct dirty_blocks *blocks);

enum dirty_blocks_kind { DIRTY_BLOCKS_CHANGED, DIRTY_BLOCKS_TO_COPY };

struct dirty_range {
    uint64_t offset;
    uint64_t bytes;
};

/* The first range at or behind `from`; false when there is none. */
bool dirty_blocks_next(struct dirty_blocks *blocks, enum dirty_blocks_kind kind, uint64_t from,
                       struct dirty_range *out_range);

/* A range that next gave is copied. */
void dirty_blocks_done(struct dirty_blocks *blocks, struct dirty_range range);

/* What one bit stands for, and the disk. */
uint64_t dirty_blocks_granularity(const struct dirty_blocks *blocks);
uint64_t dirty_blocks_virtual_bytes(const struct dirty_blocks *blocks);

#endif
