/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_claims.c - see qcow_claims.h.
 *
 * A treap: sorted by `first`, and a heap by random priorities.
 */
#include "storage/qcow/qcow_claims.h"

#include <stddef.h>

#include "base/assert.h"
#include "base/checked_math.h"

static void update(struct qcow_claim *claim)
{
    claim->last_below = claim->last;
    if (claim->left != NULL)
        claim->last_below = MAX(claim->last_below, claim->left->last_below);
    if (claim->right != NULL)
        claim->last_below = MAX(claim->last_below, claim->right->last_below);
}

/* Equal ranges are told apart by their address. */
static bool is_before(const struct qcow_claim *a, const struct qcow_claim *b)
{
    return a->first != b->first ? a->first < b->first : (uintptr_t)a < (uintptr_t)b;
}

/* Into the claims before this one and the others. */
static void split(struct qcow_claim *tree, const struct qcow_claim *at,
                  struct qcow_claim **out_before, struct qcow_claim **out_rest)
{
    if (tree == NULL) {
        *out_before = *out_rest = NULL;
    } else if (is_before(tree, at)) {
        *out_before = tree;
        split(tree->right, at, &tree->right, out_rest);
        update(tree);
    } else {
        *out_rest = tree;
        split(tree->left, at, out_before, &tree->left);
        update(tree);
    }
}

/* All of `before` is before all of `rest`. */
static struct qcow_claim *join(struct qcow_claim *before, struct qcow_claim *rest)
{
    if (before == NULL || rest == NULL)
        return before == NULL ? rest : before;
    if (before->priority >= rest->priority) {
        before->right = join(before->right, rest);
        update(before);
        return before;
    }
    rest->left = join(before, rest->left);
    update(rest);
    return rest;
}

static struct qcow_claim *insert(struct qcow_claim *tree, struct qcow_claim *claim)
{
    if (tree == NULL || tree->priority < claim->priority) {
        split(tree, claim, &claim->left, &claim->right);
        tree = claim;
    } else if (is_before(tree, claim)) {
        tree->right = insert(tree->right, claim);
    } else {
        tree->left = insert(tree->left, claim);
    }
    update(tree);
    return tree;
}

static struct qcow_claim *take_out(struct qcow_claim *tree, const struct qcow_claim *claim)
{
    ASSERT(tree != NULL);
    if (tree == claim)
        return join(tree->left, tree->right);
    if (is_before(tree, claim))
        tree->right = take_out(tree->right, claim);
    else
        tree->left = take_out(tree->left, claim);
    update(tree);
    return tree;
}

static bool overlaps(const struct qcow_claim *tree, const struct qcow_claim *wanted)
{
    while (tree != NULL && tree->last_below >= wanted->first) {
        if (tree->first <= wanted->last && wanted->first <= tree->last)
            return true;
        /* When the left side reaches far enough and has no overlap, all of it that does starts too
         * late, and so does everything on the right. */
        bool is_left = tree->left != NULL && tree->left->last_below >= wanted->first;
        tree = is_left ? tree->left : tree->right;
    }
    return false;
}

bool qcow_claims_conflict(const struct qcow_claims *claims, const struct qcow_claim *wanted)
{
    return overlaps(claims->roots[QCOW_CLAIM_EXCLUSIVE], wanted) ||
           (wanted->mode == QCOW_CLAIM_EXCLUSIVE &&
            overlaps(claims->roots[QCOW_CLAIM_SHARED], wanted));
}

void qcow_claims_add(struct qcow_claims *claims, struct qcow_claim *claim)
{
    /* A multiplicative generator: good enough to keep the tree flat. */
    claims->random = claims->random * 6364136223846793005u + 1442695040888963407u;
    claim->priority = claims->random >> 16;
    claim->left = claim->right = NULL;
    claims->roots[claim->mode] = insert(claims->roots[claim->mode], claim);
}

void qcow_claims_remove(struct qcow_claims *claims, struct qcow_claim *claim)
{
    claims->roots[claim->mode] = take_out(claims->roots[claim->mode], claim);
}
