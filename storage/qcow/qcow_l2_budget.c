/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_l2_budget.c - see qcow_l2_budget.h.
 *
 * Why the bound holds. Call what an image has above its minimum of clean slices its excess. An
 * image that asks for room when the budget is used up, finds none elsewhere and has an excess drops
 * a slice of its own; without an excess it may grow. An image whose slices become clean drops its
 * excess while the budget is exceeded. So the sum of all excesses never passes the budget, and what
 * is beyond that are minima and changed slices.
 */
#include "storage/qcow/qcow_l2_budget.h"

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/qcow/qcow_l2_cache.h"

/* What asking for room may cost: where all slices are in use, the hand has to pass all of them. */
#define STEPS_MAX  512u /* over slices */
#define VISITS_MAX 64u  /* of images */

static struct qcow_l2_budget of_process = {
    .bytes_max = DISK_TABLES_BYTES_MAX,
    .lock = LOCK_OF_PROCESS(LOCK_QCOW_TABLES),
};

struct qcow_l2_budget *qcow_l2_budget_of_process(void)
{
    return &of_process;
}

void qcow_l2_budget_join(struct qcow_l2_cache *cache)
{
    struct qcow_l2_budget *budget = cache->budget;

    lock_acquire(&budget->lock);
    if (budget->hand == NULL) {
        cache->next = cache->previous = cache;
        budget->hand = cache;
    } else {
        cache->next = budget->hand;
        cache->previous = budget->hand->previous;
        cache->next->previous = cache->previous->next = cache;
    }
    lock_release(&budget->lock);
}

void qcow_l2_budget_leave(struct qcow_l2_cache *cache)
{
    struct qcow_l2_budget *budget = cache->budget;

    lock_acquire(&budget->lock);
    ASSERT(budget->used_bytes >= cache->used_bytes);
    budget->used_bytes -= cache->used_bytes;
    if (budget->hand == cache) {
        budget->hand = cache->next == cache ? NULL : cache->next;
        budget->passed = 0;
    }
    cache->next->previous = cache->previous;
    cache->previous->next = cache->next;
    cache->next = cache->previous = NULL;
    lock_release(&budget->lock);
}

static size_t excess_locked(const struct qcow_l2_budget *budget) REQUIRES(&budget->lock)
{
    return budget->used_bytes > budget->bytes_max ? budget->used_bytes - budget->bytes_max : 0;
}

static void give_locked(struct qcow_l2_budget *budget, struct qcow_l2_cache *cache, size_t slices)
    REQUIRES(&budget->lock)
{
    size_t bytes = slices * cache->slice_bytes;

    ASSERT(cache->used_bytes >= bytes && budget->used_bytes >= bytes);
    cache->used_bytes -= bytes;
    budget->used_bytes -= bytes;
}

/* What is too much, or as much of it as the image has. Its lock is held. */
static void drop_locked(struct qcow_l2_budget *budget, struct qcow_l2_cache *cache,
                        enum qcow_l2_drop which, size_t *steps) REQUIRES(&budget->lock)
{
    size_t slices = (size_t)divide_up(excess_locked(budget), cache->slice_bytes);

    give_locked(budget, cache, qcow_l2_cache_drop(cache, which, slices, steps));
}

/* Moves the hand on in the image that it is at, whose lock is held. True when it has passed all of
 * the slices, or may take none. */
static bool pass_locked(struct qcow_l2_budget *budget, struct qcow_l2_cache *cache, size_t *steps)
    REQUIRES(&budget->lock)
{
    size_t count = cache->slice_count, passed = MIN(budget->passed, count);
    size_t here = MIN(*steps, count - passed), made = here;

    drop_locked(budget, cache, QCOW_L2_DROP_UNUSED, &here);
    made -= here;
    *steps -= made;
    budget->passed = passed + made - (count - cache->slice_count);
    return budget->passed >= cache->slice_count || (excess_locked(budget) > 0 && *steps > 0);
}

/* Moves the hand on in one image, and to the next one when it has nothing to give. `own` is the one
 * whose lock this thread has. */
static void move_hand_locked(struct qcow_l2_budget *budget, struct qcow_l2_cache *own,
                             size_t *steps) REQUIRES(&budget->lock)
{
    struct qcow_l2_cache *cache = budget->hand;
    bool is_over = true;

    if (cache == own) {
        is_over = pass_locked(budget, cache, steps);
    } else if (cache->used_bytes > DISK_TABLES_BYTES_MIN && lock_try_acquire(cache->lock)) {
        is_over = pass_locked(budget, cache, steps);
        lock_release(cache->lock);
    }
    if (is_over) {
        budget->hand = cache->next;
        budget->passed = 0;
    }
}

static void drop_own_locked(struct qcow_l2_budget *budget, struct qcow_l2_cache *own)
    REQUIRES(&budget->lock)
{
    size_t steps = own->slice_count;

    drop_locked(budget, own, QCOW_L2_DROP_CLEAN, &steps);
}

void qcow_l2_budget_take(struct qcow_l2_cache *cache)
{
    struct qcow_l2_budget *budget = cache->budget;
    size_t steps = STEPS_MAX;

    lock_acquire(&budget->lock);
    budget->used_bytes += cache->slice_bytes;
    cache->used_bytes += cache->slice_bytes;
    for (unsigned i = 0; i < VISITS_MAX && steps > 0 && excess_locked(budget) > 0; i++)
        move_hand_locked(budget, cache, &steps);
    drop_own_locked(budget, cache);
    lock_release(&budget->lock);
}

bool qcow_l2_budget_has_room(struct qcow_l2_budget *budget, size_t bytes)
{
    lock_acquire(&budget->lock);
    bool has_room = budget->used_bytes + bytes <= budget->bytes_max / 2;
    lock_release(&budget->lock);
    return has_room;
}

void qcow_l2_budget_give(struct qcow_l2_cache *cache, size_t slices)
{
    struct qcow_l2_budget *budget = cache->budget;

    lock_acquire(&budget->lock);
    give_locked(budget, cache, slices);
    lock_release(&budget->lock);
}

void qcow_l2_budget_trim(struct qcow_l2_cache *cache)
{
    struct qcow_l2_budget *budget = cache->budget;

    lock_acquire(&budget->lock);
    drop_own_locked(budget, cache);
    lock_release(&budget->lock);
}

void qcow_l2_budget_add_changed(struct qcow_l2_cache *cache, size_t slices)
{
    atomic_fetch_add_explicit(&cache->budget->changed_bytes, slices * cache->slice_bytes,
                              memory_order_relaxed);
}

void qcow_l2_budget_remove_changed(struct qcow_l2_cache *cache, size_t slices)
{
    atomic_fetch_sub_explicit(&cache->budget->changed_bytes, slices * cache->slice_bytes,
                              memory_order_relaxed);
}

bool qcow_l2_budget_wants_flush(const struct qcow_l2_budget *budget)
{
    return atomic_load_explicit(&budget->changed_bytes, memory_order_relaxed) >
           budget->bytes_max / 2;
}
