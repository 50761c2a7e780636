/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_tracked.c - see block_tracked.h.
 *
 * A planned change is noted when it is planned and has arrived when it is finished: a hold of its
 * own stands for it, which takes along the one that the disk below wants finished. Tested by:
 * dirty_blocks_test.c
 */
#include "storage/block_tracked.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "storage/dirty_blocks.h"

struct block_tracked {
    struct block base;
    struct block *disk;
    struct dirty_blocks *trackers[BLOCK_TRACKERS_MAX];
    size_t tracker_count;
};

/* One ticket of each tracker. */
struct tickets {
    unsigned of[BLOCK_TRACKERS_MAX];
};

struct tracked_hold {
    struct block_hold base;
    struct tickets tickets;
    struct block_hold *below; /* NULL: none */
};

static struct block_tracked *self_of(struct block *block)
{
    return CONTAINER_OF(block, struct block_tracked, base);
}

static struct tickets enter(struct block_tracked *self, uint64_t offset, uint64_t len)
{
    struct tickets tickets;

    for (size_t i = 0; i < self->tracker_count; i++)
        tickets.of[i] = dirty_blocks_enter(self->trackers[i], offset, len);
    return tickets;
}

static void leave(struct block_tracked *self, const struct tickets *tickets)
{
    for (size_t i = 0; i < self->tracker_count; i++)
        dirty_blocks_leave(self->trackers[i], tickets->of[i]);
}

static struct err *tracked_read(struct block *block, const struct iovec *iovs, int iov_count,
                                uint64_t offset)
{
    return block_read(self_of(block)->disk, iovs, iov_count, offset);
}

static struct err *tracked_write(struct block *block, const struct iovec *iovs, int iov_count,
                                 uint64_t offset)
{
    struct block_tracked *self = self_of(block);
    uint64_t len;

    TRY(block_check_vectors(block, BLOCK_REQUEST_CHANGE, iovs, iov_count, offset, &len));
    struct tickets tickets = enter(self, offset, len);
    struct err *err = block_write(self->disk, iovs, iov_count, offset);
    leave(self, &tickets);
    return err;
}

static struct err *tracked_flush(struct block *block)
{
    return block_flush(self_of(block)->disk);
}

static struct err *tracked_write_zeroes(struct block *block, uint64_t offset, uint64_t len,
                                        bool may_unmap)
{
    struct block_tracked *self = self_of(block);

    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    struct tickets tickets = enter(self, offset, len);
    struct err *err = block_write_zeroes(self->disk, offset, len, may_unmap);
    leave(self, &tickets);
    return err;
}

static struct err *tracked_discard(struct block *block, uint64_t offset, uint64_t len)
{
    struct block_tracked *self = self_of(block);

    TRY(block_check_range(block, BLOCK_REQUEST_CHANGE, offset, len));
    struct tickets tickets = enter(self, offset, len);
    struct err *err = block_discard(self->disk, offset, len);
    leave(self, &tickets);
    return err;
}

static bool tracked_plan(struct block *block, enum block_request_kind kind, uint64_t offset,
                         uint64_t len, struct block_plan *plan)
{
    struct block_tracked *self = self_of(block);
    unsigned first = plan->count;

    if (kind == BLOCK_REQUEST_READ)
        return block_plan_append(self->disk, kind, offset, len, plan);

    struct tracked_hold *hold = malloc(sizeof(*hold));
    if (hold == NULL)
        return false;
    hold->tickets = enter(self, offset, len);
    if (!block_plan_append(self->disk, kind, offset, len, plan) || plan->count == first) {
        leave(self, &hold->tickets);
        free(hold);
        return false;
    }
    hold->base.holder = block;
    hold->below = plan->extents[first].hold;
    plan->extents[first].hold = &hold->base;
    return true;
}

static void tracked_finish(struct block *block, struct block_hold *base, enum block_outcome outcome)
{
    struct tracked_hold *hold = CONTAINER_OF(base, struct tracked_hold, base);

    if (hold->below != NULL)
        hold->below->holder->ops->finish(hold->below->holder, hold->below, outcome);
    leave(self_of(block), &hold->tickets);
    free(hold);
}

static struct err *tracked_close(struct block *block)
{
    free(self_of(block));
    return NULL;
}

static const struct block_ops block_tracked_ops = {
    .format = "tracked",
    .read = tracked_read,
    .write = tracked_write,
    .flush = tracked_flush,
    .write_zeroes = tracked_write_zeroes,
    .discard = tracked_discard,
    .plan = tracked_plan,
    .finish = tracked_finish,
    .close = tracked_close,
};

struct err *block_tracked_create(struct block *disk, struct dirty_blocks *const *trackers,
                                 size_t tracker_count, struct block **out_block)
{
    struct block_tracked *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return err_new(ERR_NO_MEMORY, "track a disk");

    ASSERT(tracker_count <= BLOCK_TRACKERS_MAX);
    self->base.ops = &block_tracked_ops;
    self->base.virtual_bytes = disk->virtual_bytes;
    self->base.is_read_only = disk->is_read_only;
    self->disk = disk;
    memcpy(self->trackers, trackers, tracker_count * sizeof(trackers[0]));
    self->tracker_count = tracker_count;
    *out_block = &self->base;
    return NULL;
}
