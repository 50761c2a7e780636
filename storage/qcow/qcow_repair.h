/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_repair.h - puts right what a check finds.
 *
 * The guest's data is not touched. A power cut at any moment leaves an image that is no worse than
 * before, and that can be repaired again. Thread: any that may block; nobody else uses the image.
 */
#ifndef STORAGE_QCOW_QCOW_REPAIR_H
#define STORAGE_QCOW_QCOW_REPAIR_H

#include "base/err.h"
#include "storage/qcow/qcow_check.h"

struct host_file;
struct qcow_header;

enum qcow_repair_scope {
    QCOW_REPAIR_LEAKS,    /* counts above the references, and flags if nothing else is wrong */
    QCOW_REPAIR_ALL,      /* all counts and flags; then the image is neither dirty nor corrupt */
    QCOW_REPAIR_UNCLOSED, /* the same, but an image that would not be whole is refused untouched */
};

struct qcow_repair_report {
    struct qcow_check_report before, after;
};

/* What can not be put right, such as malformed entries, is still counted in `after`; what such an
 * entry may refer to is not given away. The listener hears what is found before. */
ERR_RESULT qcow_repair(struct host_file *file, enum qcow_repair_scope scope,
                       struct qcow_check_listener *listener, struct qcow_repair_report *out_report);

/* qcow2, "incompatible_features", "Dirty bit": counts may be wrong, so before anything is allocated
 * by them an image that was not closed is repaired, or refused untouched. Reads the header anew. */
ERR_RESULT qcow_repair_unclosed(struct host_file *file, struct qcow_header *header);

#endif
