/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_prune_policy.h - which files of a disk may be removed if nothing stands on them.
 *
 * Thread: any.
 */
#ifndef SNAPSHOT_LAYER_PRUNE_POLICY_H
#define SNAPSHOT_LAYER_PRUNE_POLICY_H

#include <stdbool.h>

#include "storage/image_head.h"
#include "storage/overlay_file.h"

enum layer_verdict {
    LAYER_KEPT,      /* with all that it stands on */
    LAYER_UNKNOWN,   /* likewise, because it is not known which snapshots need it */
    LAYER_REMOVABLE, /* unless something that is kept stands on it, or somebody uses it */
    LAYER_ABANDONED, /* an overlay that was prepared and never used, if it is as empty as it seems
                      */
    LAYER_DRAFT,     /* of a merge, unless that is still at work */
};

struct layer_facts {
    enum overlay_file_kind kind; /* OVERLAY_FILE_OTHER also for what is in another folder */
    enum image_head_kind head;
    unsigned number;
    unsigned newest; /* the highest number of an overlay that was used */
    bool has_other_names;
    bool is_sealed;
    bool is_known;  /* all stores that may need it are */
    bool is_needed; /* a snapshot names it */
    bool is_on_own; /* it stands on another image of the same disk */
    bool is_below_sealed;
};

/* Could the file be one that was made ahead of a switch which never came? A switch seals what is
 * below first. */
bool layer_is_unused(const struct layer_facts *facts);

enum layer_verdict layer_prune_decide(const struct layer_facts *facts);

#endif
