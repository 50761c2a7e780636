/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock.c - see lock.h.
 */
#include "base/lock.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"

/* One bit for each rank that this thread holds: the highest must be below the next one taken. */
static _Thread_local uint64_t held_ranks;

#define X(name) (0 * LOCK_##name + 1) +
static_assert(LOCK_ORDER(X) 0 <= 64, "ranks must fit the mask of held ones");
#undef X

static void check_pthread(int error)
{
    ASSERT(error == 0);
}

void lock_init(struct lock *lock, enum lock_rank rank)
{
    check_pthread(pthread_mutex_init(&lock->mutex, NULL));
    lock->rank = rank;
    lock->is_second = false;
}

void lock_finish(struct lock *lock)
{
    check_pthread(pthread_mutex_destroy(&lock->mutex));
}

void lock_acquire(struct lock *lock) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    ASSERT(held_ranks >> lock->rank == 0);
    check_pthread(pthread_mutex_lock(&lock->mutex));
    held_ranks |= (uint64_t)1 << lock->rank;
}

bool lock_try_acquire(struct lock *lock) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    int error = pthread_mutex_trylock(&lock->mutex);

    if (error == EBUSY)
        return false;
    check_pthread(error);
    lock->is_second = (held_ranks >> lock->rank & 1) != 0;
    held_ranks |= (uint64_t)1 << lock->rank;
    return true;
}

void lock_release(struct lock *lock) LOCK_ATTRIBUTE(no_thread_safety_analysis)
{
    ASSERT((held_ranks >> lock->rank & 1) != 0);
    if (!lock->is_second)
        held_ranks &= ~((uint64_t)1 << lock->rank);
    lock->is_second = false;
    check_pthread(pthread_mutex_unlock(&lock->mutex));
}

void lock_condition_init(struct lock_condition *condition)
{
    pthread_condattr_t attributes;

    check_pthread(pthread_condattr_init(&attributes));
    check_pthread(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
    check_pthread(pthread_cond_init(&condition->cond, &attributes));
    check_pthread(pthread_condattr_destroy(&attributes));
}

void lock_condition_finish(struct lock_condition *condition)
{
    check_pthread(pthread_cond_destroy(&condition->cond));
}

void lock_condition_wait(struct lock_condition *condition, struct lock *lock)
{
    check_pthread(pthread_cond_wait(&condition->cond, &lock->mutex));
}

bool lock_condition_wait_until(struct lock_condition *condition, struct lock *lock,
                               uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                .tv_nsec = (long)(deadline_ns % NS_PER_S)};
    int error = pthread_cond_timedwait(&condition->cond, &lock->mutex, &deadline);

    ASSERT(error == 0 || error == ETIMEDOUT);
    return error == 0;
}

void lock_condition_signal(struct lock_condition *condition)
{
    check_pthread(pthread_cond_signal(&condition->cond));
}

void lock_condition_broadcast(struct lock_condition *condition)
{
    check_pthread(pthread_cond_broadcast(&condition->cond));
}
