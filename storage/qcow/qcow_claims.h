/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_claims.h - which guest subclusters have host I/O in flight.
 *
 * Data moves without the image's lock. A claim keeps the mapping of its subclusters as it was
 * looked up until that I/O is done: a shared one while allocated bytes are read or overwritten, so
 * that their cluster is not given away under it; an exclusive one while a new subcluster is filled,
 * so that a second writer waits for it instead of filling another. Who replaces a whole cluster
 * claims all of it. A thread holds one claim at a time and waits for one only while it holds none.
 * Thread: any, under the image's lock.
 */
#ifndef STORAGE_QCOW_QCOW_CLAIMS_H
#define STORAGE_QCOW_QCOW_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

enum qcow_claim_mode { QCOW_CLAIM_SHARED, QCOW_CLAIM_EXCLUSIVE };

/* Lives on the stack of the thread that holds it. */
struct qcow_claim {
    struct qcow_claim *next;
    uint64_t first; /* guest subclusters, both included */
    uint64_t last;
    enum qcow_claim_mode mode;
};

struct qcow_claims {
    struct qcow_claim *first; /* as many as threads are at work */
};

bool qcow_claims_conflict(const struct qcow_claims *claims, const struct qcow_claim *wanted);
void qcow_claims_add(struct qcow_claims *claims, struct qcow_claim *claim);
void qcow_claims_remove(struct qcow_claims *claims, struct qcow_claim *claim);

#endif
