/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_stack.c - see layer_stack.h. What is read from which layer, layer_find.c says.
 */
#include "storage/layer_stack.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/lock.h"
#include "storage/io_vector.h"
#include "storage/layer_stack_internal.h"
#include "storage/qcow/qcow_image.h"

#define WARM_STRIDE 13u

static struct layer_stack *stack_of(struct block *block)
{
    return CONTAINER_OF(block, struct layer_stack, base);
}

static void stacked_free(struct stacked *stacked)
{
    err_free(block_close(stacked->layer.block)); /* read-only: nothing is lost */
    free(stacked);
}

static void give_back(struct layer_stack *stack, struct stacked *from)
{
    lock_acquire(&stack->lock);
    bool is_last = --from->readers == 0 && from->is_replaced;
    lock_release(&stack->lock);
    if (is_last)
        stacked_free(from);
}

/* Each part of the disk begins with another layer: who follows another through all of them would
 * wait for it at each. */
static void warm_up(struct layer_stack *stack, struct stacked *const *layers, unsigned count,
                    uint64_t offset)
{
    for (unsigned i = 0; i < count; i++) {
        struct stacked *layer = layers[(i + (offset >> LAYER_LEAF_BITS) * WARM_STRIDE) % count];
        layer_warm(layer, offset);
        give_back(stack, layer);
    }
}

/* The piece's layer stays open until it is given back. */
static struct err *take_piece(struct layer_stack *stack, uint64_t offset, uint64_t len,
                              struct layer_piece *out_piece)
{
    struct stacked *newer[LAYERS_MAX];

    lock_acquire(&stack->lock);
    unsigned count = layer_hold_newer_locked(stack, offset, newer);
    if (count > 0) {
        /* A hundred layers may have to be asked, most of them on disk. That is done without the
         * lock, so that requests elsewhere on the disk do not wait. */
        lock_release(&stack->lock);
        warm_up(stack, newer, count, offset);
        lock_acquire(&stack->lock);
    }
    struct err *err = layer_find_locked(stack, offset, len, out_piece);
    if (err == NULL && out_piece->from != NULL)
        out_piece->from->readers++;
    lock_release(&stack->lock);
    return err;
}

static struct err *stack_read(struct block *block, const struct iovec *iovs, int iov_count,
                              uint64_t offset)
{
    struct layer_stack *stack = stack_of(block);
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_READ, iovs, iov_count, offset, &len));
    for (uint64_t done = 0; done < len;) {
        struct io_vector part = {.count = 0};
        struct layer_piece piece;
        struct err *err = NULL;

        TRY(take_piece(stack, offset + done, len - done, &piece));
        io_vector_append_slice(&part, iovs, iov_count, done, piece.bytes);
        if (piece.from == NULL) {
            io_vector_zero(part.iovs, part.count);
        } else {
            err = block_read_padded(piece.from->layer.block, part.iovs, part.count, offset + done);
            give_back(stack, piece.from);
        }
        if (err != NULL)
            return err;
        done += piece.bytes;
    }
    return NULL;
}

/* Like take_piece, where that waits for nothing. */
static bool plan_piece(struct layer_stack *stack, uint64_t offset, uint64_t len,
                       struct layer_piece *out_piece)
{
    lock_acquire(&stack->lock);
    struct err *err = NULL;
    bool is_known = layer_is_indexed_locked(stack, offset);
    if (is_known)
        err = layer_find_locked(stack, offset, len, out_piece);
    is_known = is_known && err == NULL;
    if (is_known && out_piece->from != NULL)
        out_piece->from->readers++;
    lock_release(&stack->lock);
    err_free(err); /* the blocking call says it again */
    return is_known;
}

/* Every extent that the layer planned is a reader of it. */
static bool plan_layer(struct layer_stack *stack, struct stacked *from, uint64_t offset,
                       uint64_t len, struct block_plan *plan)
{
    struct block *layer = from->layer.block;
    uint64_t have = offset >= layer->virtual_bytes ? 0 : MIN(len, layer->virtual_bytes - offset);
    unsigned first = plan->count;

    if (have > 0 && !block_plan_append(layer, BLOCK_REQUEST_READ, offset, have, plan))
        return false;
    lock_acquire(&stack->lock);
    for (unsigned i = first; i < plan->count; i++) {
        ASSERT(plan->extents[i].hold == NULL);
        plan->extents[i].hold = &from->hold;
        from->readers++;
    }
    lock_release(&stack->lock);
    return have == len || block_plan_add(plan, &(struct block_extent){.bytes = len - have});
}

static bool stack_plan(struct block *block, enum block_request_kind kind, uint64_t offset,
                       uint64_t len, struct block_plan *plan)
{
    struct layer_stack *stack = stack_of(block);

    (void)kind; /* of a read-only block, reads are planned alone */
    for (uint64_t done = 0; done < len;) {
        struct layer_piece piece;
        bool is_planned;
        if (!plan_piece(stack, offset + done, len - done, &piece))
            return false;
        if (piece.from == NULL) {
            is_planned = block_plan_add(plan, &(struct block_extent){.bytes = piece.bytes});
        } else {
            is_planned = plan_layer(stack, piece.from, offset + done, piece.bytes, plan);
            give_back(stack, piece.from);
        }
        if (!is_planned)
            return false;
        done += piece.bytes;
    }
    return true;
}

static void stack_finish(struct block *block, struct block_hold *hold, enum block_outcome outcome)
{
    (void)outcome;
    give_back(stack_of(block), CONTAINER_OF(hold, struct stacked, hold));
}

struct err *layer_stack_presence(struct layer_stack *stack, uint64_t offset, uint64_t len,
                                 enum qcow_presence *out_presence, uint64_t *out_bytes)
{
    struct layer_piece piece;

    TRY(take_piece(stack, offset, len, &piece));
    *out_presence = QCOW_PRESENCE_NONE;
    *out_bytes = piece.bytes;
    if (piece.from == NULL)
        return NULL;
    struct err *err = layer_presence(piece.from, offset, piece.bytes, out_presence, out_bytes);
    give_back(stack, piece.from);
    return err;
}

static struct err *stack_write(struct block *block, const struct iovec *iovs, int iov_count,
                               uint64_t offset)
{
    uint64_t len;

    return block_check_vectors(block, BLOCK_REQUEST_CHANGE, iovs, iov_count, offset, &len);
}

static struct err *stack_flush(struct block *block)
{
    (void)block;
    return NULL;
}

static struct err *stack_write_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                      bool may_unmap)
{
    (void)may_unmap;
    return block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len);
}

static struct err *stack_discard(struct block *block, uint64_t offset, uint64_t len)
{
    return block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len);
}

static struct err *stack_close(struct block *block) LOCK_UNCHECKED
{
    struct layer_stack *stack = stack_of(block);
    struct err *err = NULL;

    for (unsigned i = 0; i < stack->count; i++) {
        struct err *layer_err = block_close(stack->layers[i]->layer.block);
        if (err == NULL)
            err = layer_err;
        else
            err_free(layer_err);
        free(stack->layers[i]);
    }
    layer_index_finish(&stack->index);
    lock_finish(&stack->lock);
    free(stack);
    return err;
}

/* Ids have run out, or the disk has another size: what the index says is not worth keeping. */
static struct err *start_anew(struct layer_stack *stack, uint64_t virtual_bytes)
    REQUIRES(&stack->lock)
{
    struct layer_index index;

    TRY(layer_index_init(&index, virtual_bytes, LAYER_INDEX_BYTES_MAX));
    layer_index_finish(&stack->index);
    stack->index = index;
    for (unsigned i = 0; i < stack->count; i++)
        stack->by_id[i] = stack->layers[i];
    stack->id_count = stack->count;
    stack->base.virtual_bytes = virtual_bytes;
    return NULL;
}

static struct err *push_locked(struct layer_stack *stack, struct stacked *stacked)
    REQUIRES(&stack->lock)
{
    uint64_t bytes = stacked->layer.block->virtual_bytes;

    if (stack->count == LAYERS_MAX)
        return err_new(ERR_STATE, "a disk of more than %u layers", LAYERS_MAX);
    if (stack->id_count == LAYER_IDS_MAX || bytes != stack->base.virtual_bytes)
        TRY(start_anew(stack, bytes));
    stacked->place = stack->count;
    stack->layers[stack->count++] = stacked;
    stack->by_id[stack->id_count++] = stacked;
    return NULL;
}

struct err *layer_stack_push(struct layer_stack *stack, const struct image_layer *layer)
{
    CLEANUP(cleanup_free) struct stacked *stacked = calloc(1, sizeof(*stacked));
    if (stacked == NULL)
        return err_new(ERR_NO_MEMORY, "layers of a disk");

    stacked->layer = *layer;
    stacked->hold.holder = &stack->base;
    lock_acquire(&stack->lock);
    struct err *err = push_locked(stack, stacked);
    lock_release(&stack->lock);
    if (err == NULL)
        (void)TAKE_PTR(stacked);
    return err;
}

void layer_stack_pop(struct layer_stack *stack)
{
    lock_acquire(&stack->lock);
    ASSERT(stack->count > 0);
    struct stacked *top = stack->layers[--stack->count];
    ASSERT(top->readers == 0);
    stack->id_count--;
    stack->base.virtual_bytes =
        stack->count == 0 ? 0 : stack->layers[stack->count - 1]->layer.block->virtual_bytes;
    lock_release(&stack->lock);
    free(top);
}

unsigned layer_stack_depth(struct layer_stack *stack)
{
    lock_acquire(&stack->lock);
    unsigned count = stack->count;
    lock_release(&stack->lock);
    return count;
}

const struct image_layer *layer_stack_layer(struct layer_stack *stack, unsigned place)
{
    lock_acquire(&stack->lock);
    ASSERT(place < stack->count);
    const struct image_layer *layer = &stack->layers[place]->layer;
    lock_release(&stack->lock);
    return layer;
}

/* Takes the layers out of the stack; gives those that nobody reads, to be closed unlocked. */
static unsigned replace_locked(struct layer_stack *stack, unsigned first, unsigned last,
                               struct stacked *merged, struct stacked **out_idle)
    REQUIRES(&stack->lock)
{
    unsigned idle = 0, count = last - first + 1;

    for (unsigned id = 0; id < stack->id_count; id++)
        if (stack->by_id[id]->place >= first && stack->by_id[id]->place <= last)
            stack->by_id[id] = merged;
    for (unsigned i = first; i <= last; i++) {
        stack->layers[i]->is_replaced = true;
        if (stack->layers[i]->readers == 0)
            out_idle[idle++] = stack->layers[i];
    }
    stack->layers[first] = merged;
    memmove(&stack->layers[first + 1], &stack->layers[last + 1],
            (stack->count - last - 1) * sizeof(stack->layers[0]));
    stack->count -= count - 1;
    for (unsigned i = first; i < stack->count; i++)
        stack->layers[i]->place = i;
    return idle;
}

struct err *layer_stack_replace(struct layer_stack *stack, unsigned first, unsigned last,
                                const struct image_layer *merged)
{
    struct stacked *idle[LAYERS_MAX];
    struct stacked *stacked = calloc(1, sizeof(*stacked));
    if (stacked == NULL)
        return err_new(ERR_NO_MEMORY, "layers of a disk");

    stacked->layer = *merged;
    stacked->hold.holder = &stack->base;
    stacked->place = LAYERS_MAX;
    lock_acquire(&stack->lock);
    ASSERT(first <= last && last < stack->count);
    unsigned count = replace_locked(stack, first, last, stacked, idle);
    lock_release(&stack->lock);
    for (unsigned i = 0; i < count; i++)
        stacked_free(idle[i]);
    return NULL;
}

static const struct block_ops layer_stack_ops = {
    .format = "layered",
    .read = stack_read,
    .write = stack_write,
    .flush = stack_flush,
    .write_zeroes = stack_write_zeroes,
    .discard = stack_discard,
    .plan = stack_plan,
    .finish = stack_finish,
    .close = stack_close,
};

struct err *layer_stack_create(struct layer_stack **out_stack) LOCK_UNCHECKED
{
    struct layer_stack *stack = calloc(1, sizeof(*stack));
    if (stack == NULL)
        return err_new(ERR_NO_MEMORY, "layers of a disk");

    lock_init(&stack->lock, LOCK_LAYERS);
    stack->base.ops = &layer_stack_ops;
    stack->base.is_read_only = true;
    *out_stack = stack;
    return NULL;
}

struct block *layer_stack_block(struct layer_stack *stack)
{
    return &stack->base;
}
