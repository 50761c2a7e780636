/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_stack.h - the sealed layers of a disk as one read-only block.
 *
 * The newest layer that holds a byte wins. Which one that is stands in an index in memory, so a
 * read goes to one file whatever the number of layers. The index is filled as it is asked for, and
 * takes a new layer in at the first look at each of its parts: pushing one costs nothing that grows
 * with the disk.
 *
 * Memory of a disk, at most: LAYER_INDEX_BYTES_MAX for the index. Slices of the layers' L2 tables
 * come out of the budget of all images of the process (storage/qcow/qcow_l2_budget.h).
 * Thread: reads any, several at once; the rest one at a time, and while reads are running only
 * layer_stack_replace.
 */
#ifndef STORAGE_LAYER_STACK_H
#define STORAGE_LAYER_STACK_H

#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "storage/block.h"
#include "storage/image_layer.h"
#include "storage/qcow/qcow_presence.h"

#define LAYER_INDEX_BYTES_MAX (64 * MIB)

struct layer_stack;

/* Without a layer, and of no bytes. */
ERR_RESULT layer_stack_create(struct layer_stack **out_stack);

/* As a block: closing it closes the layers and frees the stack. */
struct block *layer_stack_block(struct layer_stack *stack);

/* Puts a read-only layer on top, which belongs to the stack from then on; its size is the stack's.
 * On failure the layer is still the caller's. */
ERR_RESULT layer_stack_push(struct layer_stack *stack, const struct image_layer *layer);

/* Takes the top layer off again, before anything was read since it was pushed. */
void layer_stack_pop(struct layer_stack *stack);

unsigned layer_stack_depth(struct layer_stack *stack);

/* A layer by its place, 0 the lowest; valid until it is replaced. */
const struct image_layer *layer_stack_layer(struct layer_stack *stack, unsigned place);

/* What the layers hold of a range, as of one image (see qcow_presence.h): the newest wins. */
ERR_RESULT layer_stack_presence(struct layer_stack *stack, uint64_t offset, uint64_t len,
                                enum qcow_presence *out_presence, uint64_t *out_bytes);

/* Puts one layer, which holds the union of those at [first, last], in their place. They are closed
 * when the reads that use them have ended. On failure nothing has changed. */
ERR_RESULT layer_stack_replace(struct layer_stack *stack, unsigned first, unsigned last,
                               const struct image_layer *merged);

#endif
