/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_find.c - see layer_stack_internal.h: which layer of a stack holds a byte.
 * Tested by: layer_stack_test.c
 *
 * How it works. Each push gives the layer an id, counted up. The index says for each unit of 4 KiB
 *
 *     0            no layer holds it: zeros
 *     id + 1       that layer holds all of it, and is the newest that does
 *     | PARTIAL    it is the newest that holds some of it: look from there downwards
 *
 * PARTIAL occurs with clusters smaller than a unit and where an image ends within one. A leaf
 * remembers up to which id layers have been merged into it; newer ones are merged in when it is
 * next looked at, each over what the older ones said.
 *
 * Ids lead to layers through `by_id`. When one layer takes the place of several, all of their ids
 * lead to it: every number in the index stays right, and so does a leaf that had some of them
 * merged in and some not yet, because merging the union once more changes nothing.
 *
 * A layer ends where its size says: behind that it holds zeros, also over what lower ones have
 * there.
 */
#include "base/checked_math.h"
#include "storage/layer_stack_internal.h"

#define PARTIAL    0x4000u
#define UNIT_BYTES ((uint64_t)1 << LAYER_UNIT_BITS)
#define LEAF_BYTES ((uint64_t)1 << LAYER_LEAF_BITS)

struct err *layer_presence(const struct stacked *stacked, uint64_t offset, uint64_t len,
                           enum qcow_presence *out_presence, uint64_t *out_bytes)
{
    struct block *block = stacked->layer.block;
    bool is_behind = offset >= block->virtual_bytes;
    uint64_t have = is_behind ? len : MIN(len, block->virtual_bytes - offset);

    if (stacked->layer.is_qcow && !is_behind)
        return qcow_image_presence(block, offset, have, out_presence, out_bytes);
    *out_presence = is_behind ? QCOW_PRESENCE_ZERO : QCOW_PRESENCE_DATA;
    *out_bytes = have;
    return NULL;
}

/* Is the byte in this layer, and for how many from there on, of at most `len`, is it the same? */
static struct err *is_held(const struct stacked *stacked, uint64_t offset, uint64_t len,
                           bool *out_is_held, uint64_t *out_bytes)
{
    enum qcow_presence presence;

    TRY(layer_presence(stacked, offset, len, &presence, out_bytes));
    *out_is_held = presence != QCOW_PRESENCE_NONE;
    return NULL;
}

/* Units that are held as a whole get the layer's number, those of which a part is, PARTIAL. */
static struct err *note_held(struct layer_stack *stack, struct layer_leaf *leaf, uint64_t from,
                             uint64_t to, uint16_t number) REQUIRES(&stack->lock)
{
    uint64_t first = align_up(from, UNIT_BYTES), end = align_down(to, UNIT_BYTES);
    unsigned mask = LAYER_LEAF_UNITS - 1;

    if (to == stack->base.virtual_bytes)
        end = align_up(to, UNIT_BYTES);
    if (first > from)
        TRY(layer_leaf_set(&stack->index, leaf, (unsigned)(from >> LAYER_UNIT_BITS) & mask, 1,
                           number | PARTIAL));
    if (end < to && (first == from || end >= first))
        TRY(layer_leaf_set(&stack->index, leaf, (unsigned)(to >> LAYER_UNIT_BITS) & mask, 1,
                           number | PARTIAL));
    if (first >= end)
        return NULL;
    return layer_leaf_set(&stack->index, leaf, (unsigned)(first >> LAYER_UNIT_BITS) & mask,
                          (unsigned)((end - first) >> LAYER_UNIT_BITS), number);
}

static struct err *merge_layer(struct layer_stack *stack, struct layer_leaf *leaf, uint64_t from,
                               unsigned id) REQUIRES(&stack->lock)
{
    uint64_t to = MIN(from + LEAF_BYTES, stack->base.virtual_bytes);
    uint64_t held_from = from;

    for (uint64_t at = from; at < to;) {
        uint64_t bytes = 0;
        bool held = false;
        TRY(is_held(stack->by_id[id], at, to - at, &held, &bytes));
        if (!held) {
            if (held_from < at)
                TRY(note_held(stack, leaf, held_from, at, (uint16_t)(id + 1)));
            held_from = at + bytes;
        }
        at += bytes;
    }
    return held_from < to ? note_held(stack, leaf, held_from, to, (uint16_t)(id + 1)) : NULL;
}

/* Of ids that lead to the same layer the last one is taken. */
static struct err *merge_newer(struct layer_stack *stack, struct layer_leaf *leaf, uint64_t offset)
    REQUIRES(&stack->lock)
{
    for (unsigned id = leaf->merged_upto; id < stack->id_count; id++) {
        bool is_last = id + 1 == stack->id_count || stack->by_id[id + 1] != stack->by_id[id];
        if (is_last)
            TRY(merge_layer(stack, leaf, align_down(offset, LEAF_BYTES), id));
        leaf->merged_upto = id + 1;
    }
    return NULL;
}

unsigned layer_hold_newer_locked(struct layer_stack *stack, uint64_t offset,
                                 struct stacked *out_layers[LAYERS_MAX])
{
    struct layer_leaf *leaf;
    unsigned count = 0;
    struct err *err = layer_index_leaf(&stack->index, offset, &leaf);

    for (unsigned id = err == NULL ? leaf->merged_upto : stack->id_count; id < stack->id_count;
         id++) {
        if (count > 0 && out_layers[count - 1] == stack->by_id[id])
            continue;
        out_layers[count++] = stack->by_id[id];
        stack->by_id[id]->readers++;
    }
    err_free(err); /* finding says it again */
    return count;
}

void layer_warm(const struct stacked *stacked, uint64_t offset)
{
    uint64_t at = align_down(offset, LEAF_BYTES), to = at + LEAF_BYTES, bytes = 0;
    enum qcow_presence presence;
    struct err *err = NULL;

    for (; err == NULL && at < to; at += bytes)
        err = layer_presence(stacked, at, to - at, &presence, &bytes);
    err_free(err); /* finding says it again */
}

/* The newest layer at or below `place` that holds the byte; at most `len` bytes. */
static struct err *look_down(struct layer_stack *stack, unsigned place, uint64_t offset,
                             uint64_t len, struct layer_piece *out_piece) REQUIRES(&stack->lock)
{
    for (unsigned i = place + 1; i-- > 0;) {
        bool held = false;
        TRY(is_held(stack->layers[i], offset, len, &held, &len));
        if (held) {
            *out_piece = (struct layer_piece){.from = stack->layers[i], .bytes = len};
            return NULL;
        }
    }
    *out_piece = (struct layer_piece){.bytes = len};
    return NULL;
}

struct err *layer_find_locked(struct layer_stack *stack, uint64_t offset, uint64_t len,
                              struct layer_piece *out_piece) REQUIRES(&stack->lock)
{
    unsigned unit = (unsigned)(offset >> LAYER_UNIT_BITS) & (LAYER_LEAF_UNITS - 1), run = 0;
    uint64_t in_unit = offset & (UNIT_BYTES - 1);
    uint64_t units = divide_up(in_unit + len, UNIT_BYTES);
    struct layer_leaf *leaf;

    TRY(layer_index_leaf(&stack->index, offset, &leaf));
    if (leaf->merged_upto < stack->id_count)
        TRY(merge_newer(stack, leaf, offset));
    units = MIN(units, (uint64_t)LAYER_LEAF_UNITS - unit);
    unsigned number = layer_leaf_get(leaf, unit, (unsigned)units, &run);
    if (number == 0) {
        *out_piece = (struct layer_piece){.bytes = MIN(len, run * UNIT_BYTES - in_unit)};
        return NULL;
    }
    struct stacked *from = stack->by_id[(number & ~PARTIAL) - 1];
    if ((number & PARTIAL) != 0)
        return look_down(stack, from->place, offset, MIN(len, UNIT_BYTES - in_unit), out_piece);
    *out_piece = (struct layer_piece){.from = from, .bytes = MIN(len, run * UNIT_BYTES - in_unit)};
    return NULL;
}

bool layer_is_indexed_locked(struct layer_stack *stack, uint64_t offset) REQUIRES(&stack->lock)
{
    struct layer_leaf *leaf;
    unsigned run;
    struct err *err = layer_index_leaf(&stack->index, offset, &leaf);
    bool is_known =
        err == NULL && leaf->merged_upto == stack->id_count &&
        (layer_leaf_get(leaf, (unsigned)(offset >> LAYER_UNIT_BITS) & (LAYER_LEAF_UNITS - 1), 1,
                        &run) &
         PARTIAL) == 0;

    err_free(err); /* the blocking call says it again */
    return is_known;
}
