/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_stack_internal.h - what a stack of layers is made of, for layer_stack.c and layer_find.c.
 */
#ifndef STORAGE_LAYER_STACK_INTERNAL_H
#define STORAGE_LAYER_STACK_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/lock.h"
#include "storage/block.h"
#include "storage/image_layer.h"
#include "storage/layer_index.h"
#include "storage/qcow/qcow_presence.h"

#define LAYER_IDS_MAX 0x3fffu
#define LAYERS_MAX    (DISK_BACKING_DEPTH_MAX + 1)

struct stacked {
    struct image_layer layer; /* owned */
    struct block_hold hold;   /* of a planned read: counts as a reader */
    unsigned place;
    unsigned readers; /* requests that read from it */
    bool is_replaced; /* closed by the last reader */
};

struct layer_stack {
    struct block base;
    struct lock lock;
    struct stacked *layers[LAYERS_MAX] GUARDED_BY(&lock); /* owned; the lowest first */
    unsigned count GUARDED_BY(&lock);
    struct stacked *by_id[LAYER_IDS_MAX] GUARDED_BY(&lock);
    unsigned id_count GUARDED_BY(&lock);
    struct layer_index index GUARDED_BY(&lock);
};

/* Part of a request that one layer answers. */
struct layer_piece {
    struct stacked *from; /* NULL: zeros */
    uint64_t bytes;
};

/* What one layer holds: also zeros behind its end. */
ERR_RESULT layer_presence(const struct stacked *stacked, uint64_t offset, uint64_t len,
                          enum qcow_presence *out_presence, uint64_t *out_bytes);

/* Which layer answers for the byte, and for how many from there on, of at most `len`. Asks the
 * layers, where the index does not say it yet. */
ERR_RESULT layer_find_locked(struct layer_stack *stack, uint64_t offset, uint64_t len,
                             struct layer_piece *out_piece) REQUIRES(&stack->lock);

/* The layers that finding this byte will ask, which their readers keep open; gives how many. */
unsigned layer_hold_newer_locked(struct layer_stack *stack, uint64_t offset,
                                 struct stacked *out_layers[LAYERS_MAX]) REQUIRES(&stack->lock);

/* Asks a layer in advance, without the stack's lock: its tables are in memory afterwards. */
void layer_warm(const struct stacked *stacked, uint64_t offset);

/* Is it known which layer holds the byte, without asking the layers? */
bool layer_is_indexed_locked(struct layer_stack *stack, uint64_t offset) REQUIRES(&stack->lock);

#endif
