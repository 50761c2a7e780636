/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock.h - a mutex with a rank, that the compiler can reason about.
 *
 * LOCK_ORDER lists every lock of the tree from outermost to innermost: a thread may take a lock
 * only while all that it holds stand above it in the list. Every build asserts that.
 *
 * Declare a struct's lock before the fields that it guards:
 *
 *     struct lock lock;
 *     size_t dirty_pages GUARDED_BY(&lock);
 *
 * clang 19 and later check both kinds of annotation with -Wthread-safety; elsewhere they are
 * documentation. A function that expects the lock to be held ends in _locked.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__clang__) && __clang_major__ >= 19
#define LOCK_ATTRIBUTE(x) __attribute__((x))
#else
#define LOCK_ATTRIBUTE(x)
#endif

#define GUARDED_BY(lock_ptr) LOCK_ATTRIBUTE(guarded_by(lock_ptr))
#define REQUIRES(lock_ptr)   LOCK_ATTRIBUTE(requires_capability(lock_ptr))
#define ACQUIRES(lock_ptr)   LOCK_ATTRIBUTE(acquire_capability(lock_ptr))
#define RELEASES(lock_ptr)   LOCK_ATTRIBUTE(release_capability(lock_ptr))
#define TRIES(lock_ptr)      LOCK_ATTRIBUTE(try_acquire_capability(true, lock_ptr))

/* For create and destroy, when no other thread knows the object; elsewhere a comment says why the
 * lock is not needed. */
#define LOCK_UNCHECKED LOCK_ATTRIBUTE(no_thread_safety_analysis)

/* Outermost first. */
#define LOCK_ORDER(X)                                                                              \
    X(MIGRATION_SESSION)                                                                           \
    X(MIGRATION_PROGRESS)                                                                          \
    X(LINK)                                                                                        \
    X(LINK_SEND)                                                                                   \
    X(LOOP_WORKER)                                                                                 \
    X(VCPU_GATE)                                                                                   \
    X(DEVICES)                                                                                     \
    X(DISK_LIMIT)                                                                                  \
    X(VIRTQUEUE)                                                                                   \
    X(MSIX)                                                                                        \
    X(IRQ_ROUTES)                                                                                  \
    X(COPY)                                                                                        \
    X(DIRTY_BLOCKS)                                                                                \
    X(LAYERS)                                                                                      \
    X(QCOW)                                                                                        \
    X(QCOW_TABLES)                                                                                 \
    X(WRITE_RANGES)                                                                                \
    X(TEST)                                                                                        \
    X(IO_POOL)                                                                                     \
    X(CHANNEL)                                                                                     \
    X(QUEUE)                                                                                       \
    X(LOOP)                                                                                        \
    X(LOG)

enum lock_rank {
#define X(name) LOCK_##name,
    LOCK_ORDER(X)
#undef X
};

struct LOCK_ATTRIBUTE(capability("lock")) lock {
    pthread_mutex_t mutex;
    enum lock_rank rank;
    bool is_second; /* its holder has another of the same rank; the lock's own field */
};

/* For a lock that the process has one of, which nobody initialises. */
#define LOCK_OF_PROCESS(rank_value) {.mutex = PTHREAD_MUTEX_INITIALIZER, .rank = (rank_value)}

/* Waits on a lock; take it first. Spurious wake-ups happen: wait in a loop over the condition. */
struct lock_condition {
    pthread_cond_t cond;
};

void lock_init(struct lock *lock, enum lock_rank rank);
void lock_finish(struct lock *lock);
void lock_acquire(struct lock *lock) ACQUIRES(lock);
void lock_release(struct lock *lock) RELEASES(lock);

/* Takes it if nobody has it. Does not wait, so the order does not matter, and the same thread may
 * hold another of this rank, which it releases later than this one. */
bool lock_try_acquire(struct lock *lock) TRIES(lock);

void lock_condition_init(struct lock_condition *condition);
void lock_condition_finish(struct lock_condition *condition);
void lock_condition_wait(struct lock_condition *condition, struct lock *lock) REQUIRES(lock);
/* False when CLOCK_MONOTONIC reached deadline_ns first. */
bool lock_condition_wait_until(struct lock_condition *condition, struct lock *lock,
                               uint64_t deadline_ns) REQUIRES(lock);
void lock_condition_signal(struct lock_condition *condition);
void lock_condition_broadcast(struct lock_condition *condition);

#endif
