/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_prune_policy.c - see layer_prune_policy.h.
 */
#include "snapshot/layer_prune_policy.h"

bool layer_is_unused(const struct layer_facts *facts)
{
    if (facts->kind != OVERLAY_FILE_OVERLAY || facts->is_sealed)
        return false;
    return facts->head == IMAGE_HEAD_BLANK ||
           (facts->head == IMAGE_HEAD_QCOW && facts->is_on_own && !facts->is_below_sealed);
}

/* The newest that was used stays, so that its number is not given to another file: who refers to a
 * layer that is gone must not find something else by its name. */
enum layer_verdict layer_prune_decide(const struct layer_facts *facts)
{
    bool is_overlay = facts->kind == OVERLAY_FILE_OVERLAY;

    if (facts->has_other_names || facts->is_needed)
        return LAYER_KEPT;
    if (facts->kind == OVERLAY_FILE_MERGING)
        return LAYER_DRAFT;
    if (!is_overlay)
        return LAYER_KEPT;
    if (layer_is_unused(facts))
        return facts->number > facts->newest ? LAYER_ABANDONED : LAYER_KEPT;
    if (!facts->is_sealed || facts->head != IMAGE_HEAD_QCOW || !facts->is_on_own ||
        facts->number >= facts->newest)
        return LAYER_KEPT;
    return facts->is_known ? LAYER_REMOVABLE : LAYER_UNKNOWN;
}
