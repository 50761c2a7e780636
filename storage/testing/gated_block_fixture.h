/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gated_block_fixture.h - a disk whose writes do not end before the test says so.
 */
#ifndef STORAGE_TESTING_GATED_BLOCK_FIXTURE_H
#define STORAGE_TESTING_GATED_BLOCK_FIXTURE_H

#include "base/checked_math.h"
#include "base/lock.h"
#include "storage/block.h"

struct gated_block {
    struct block base;
    struct lock lock;
    struct lock_condition changed;
    unsigned entered GUARDED_BY(&lock);
    bool is_open GUARDED_BY(&lock);
};

static inline struct err *gated_write(struct block *block, const struct iovec *iovs, int iov_count,
                                      uint64_t offset)
{
    struct gated_block *gate = CONTAINER_OF(block, struct gated_block, base);

    (void)iovs;
    (void)iov_count;
    (void)offset;
    lock_acquire(&gate->lock);
    gate->entered++;
    lock_condition_broadcast(&gate->changed);
    while (!gate->is_open)
        lock_condition_wait(&gate->changed, &gate->lock);
    lock_release(&gate->lock);
    return NULL;
}

static const struct block_ops gated_ops = {.format = "gated", .write = gated_write};

static inline void gate_init(struct gated_block *gate, uint64_t bytes)
{
    *gate = (struct gated_block){.base = {.ops = &gated_ops, .virtual_bytes = bytes}};
    lock_init(&gate->lock, LOCK_TEST);
    lock_condition_init(&gate->changed);
}

static inline void gate_finish(struct gated_block *gate)
{
    lock_condition_finish(&gate->changed);
    lock_finish(&gate->lock);
}

/* Takes a gated_block, as a thread's main does. */
static inline void gate_open(void *argument)
{
    struct gated_block *gate = argument;

    lock_acquire(&gate->lock);
    gate->is_open = true;
    lock_condition_broadcast(&gate->changed);
    lock_release(&gate->lock);
}

/* How many writes have come. */
static inline unsigned gate_entered(struct gated_block *gate)
{
    lock_acquire(&gate->lock);
    unsigned entered = gate->entered;
    lock_release(&gate->lock);
    return entered;
}

static inline void gate_wait_entered(struct gated_block *gate, unsigned count)
{
    lock_acquire(&gate->lock);
    while (gate->entered < count)
        lock_condition_wait(&gate->changed, &gate->lock);
    lock_release(&gate->lock);
}

#endif
