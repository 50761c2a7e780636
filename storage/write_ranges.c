/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write_ranges.c - see write_ranges.h.
 *
 * A plain range looks at the exclusive ones only, of which there are hardly ever any; so the usual
 * write pays for a lock and a link.
 */
#include "storage/write_ranges.h"

#include <stddef.h>

#include "base/assert.h"

void write_ranges_init(struct write_ranges *ranges) LOCK_UNCHECKED
{
    lock_init(&ranges->lock, LOCK_WRITE_RANGES);
    lock_condition_init(&ranges->changed);
    ranges->plain = NULL;
    ranges->exclusive = NULL;
}

void write_ranges_finish(struct write_ranges *ranges) LOCK_UNCHECKED
{
    ASSERT(ranges->plain == NULL && ranges->exclusive == NULL);
    lock_condition_finish(&ranges->changed);
    lock_finish(&ranges->lock);
}

static bool touches(const struct write_range *list, const struct write_range *range)
{
    for (; list != NULL; list = list->next)
        if (list->first < range->end && range->first < list->end)
            return true;
    return false;
}

static void push(struct write_range **list, struct write_range *range)
{
    ASSERT(range->first < range->end);
    range->next = *list;
    *list = range;
}

static bool take_out(struct write_range **link, const struct write_range *range)
{
    while (*link != NULL && *link != range)
        link = &(*link)->next;
    if (*link == NULL)
        return false;
    *link = range->next;
    return true;
}

void write_ranges_begin(struct write_ranges *ranges, struct write_range *range)
{
    lock_acquire(&ranges->lock);
    while (touches(ranges->exclusive, range))
        lock_condition_wait(&ranges->changed, &ranges->lock);
    push(&ranges->plain, range);
    lock_release(&ranges->lock);
}

/* It stands in the list while it waits, so that a stream of plain writers can not starve it. Of
 * two exclusive ones the later waits, because only the older stands behind it in the list. */
void write_ranges_begin_exclusive(struct write_ranges *ranges, struct write_range *range)
{
    lock_acquire(&ranges->lock);
    push(&ranges->exclusive, range);
    while (touches(ranges->plain, range) || touches(range->next, range))
        lock_condition_wait(&ranges->changed, &ranges->lock);
    lock_release(&ranges->lock);
}

bool write_ranges_try_begin(struct write_ranges *ranges, struct write_range *range)
{
    lock_acquire(&ranges->lock);
    bool is_free = !touches(ranges->exclusive, range);
    if (is_free)
        push(&ranges->plain, range);
    lock_release(&ranges->lock);
    return is_free;
}

void write_ranges_end(struct write_ranges *ranges, struct write_range *range)
{
    lock_acquire(&ranges->lock);
    bool has_waiters = ranges->exclusive != NULL;
    bool is_known = take_out(&ranges->plain, range) || take_out(&ranges->exclusive, range);
    ASSERT(is_known);
    if (has_waiters)
        lock_condition_broadcast(&ranges->changed);
    lock_release(&ranges->lock);
}
