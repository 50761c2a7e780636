/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_claims.h - which guest subclusters have host I/O in flight.
 *
 * Data moves without the image's lock. A claim keeps the mapping of its subclusters as it was
 * looked up until that I/O is done: a shared one while allocated bytes are read or overwritten, so
 * that their cluster is not given away under it; an exclusive one while a new subcluster is filled,
 * so that a second writer waits for it instead of filling another. Who replaces a whole cluster
 * claims all of it. A thread waits for a claim only while it holds none.
 *
 * A tree of ranges for each mode, so that a question costs the logarithm of what is in flight.
 * Thread: any, under the image's lock.
 */
#ifndef STORAGE_QCOW_QCOW_CLAIMS_H
#define STORAGE_QCOW_QCOW_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

enum qcow_claim_mode { QCOW_CLAIM_SHARED, QCOW_CLAIM_EXCLUSIVE, QCOW_CLAIM_MODES };

/* Belongs to who holds it. */
struct qcow_claim {
    uint64_t first; /* guest subclusters, both included */
    uint64_t last;
    enum qcow_claim_mode mode;
    struct qcow_claim *left, *right; /* in the tree, sorted by `first` */
    uint64_t last_below;             /* the largest `last` of this claim and those below it */
    uint64_t priority;               /* not above its parent's: random, so the tree is flat */
};

struct qcow_claims {
    struct qcow_claim *roots[QCOW_CLAIM_MODES];
    uint64_t random;
};

bool qcow_claims_conflict(const struct qcow_claims *claims, const struct qcow_claim *wanted);
void qcow_claims_add(struct qcow_claims *claims, struct qcow_claim *claim);
void qcow_claims_remove(struct qcow_claims *claims, struct qcow_claim *claim);

#endif
