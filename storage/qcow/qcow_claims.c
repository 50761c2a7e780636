/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_claims.c - see qcow_claims.h.
 * Tested by: qcow_image_test.c
 */
#include "storage/qcow/qcow_claims.h"

#include <stddef.h>

#include "base/assert.h"

bool qcow_claims_conflict(const struct qcow_claims *claims, const struct qcow_claim *wanted)
{
    for (const struct qcow_claim *claim = claims->first; claim != NULL; claim = claim->next) {
        bool overlaps = claim->first <= wanted->last && wanted->first <= claim->last;
        bool is_shared = claim->mode == QCOW_CLAIM_SHARED && wanted->mode == QCOW_CLAIM_SHARED;
        if (overlaps && !is_shared)
            return true;
    }
    return false;
}

void qcow_claims_add(struct qcow_claims *claims, struct qcow_claim *claim)
{
    claim->next = claims->first;
    claims->first = claim;
}

void qcow_claims_remove(struct qcow_claims *claims, struct qcow_claim *claim)
{
    struct qcow_claim **link = &claims->first;

    while (*link != claim) {
        ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = claim->next;
}
