/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.h - reads a snapshot completely and compares every checksum. Thread: any; blocks.
 */
#ifndef SNAPSHOT_VERIFY_H
#define SNAPSHOT_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "snapshot/sealed_disk.h"
#include "snapshot/snapshot_store.h"

struct verify_report {
    uint64_t pages_read;
    uint64_t pages_zero;
    uint64_t problem_count;    /* more than are told, if there are many */
    struct name_list problems; /* what is wrong, as sentences */
};

/* Damage is reported; an error means that it could not be looked for. `more` are folders of backing
 * files beside those that the snapshot says. */
ERR_RESULT snapshot_verify(struct snapshot_store *store, const char *machine, const char *id,
                           struct sealed_disk_folders more, struct verify_report *out_report);
void verify_report_finish(struct verify_report *report);

/* The same as an error, when there is a problem. */
ERR_RESULT verify_report_error(const struct verify_report *report);

static inline bool verify_report_is_good(const struct verify_report *report)
{
    return report->problem_count == 0;
}

#endif
