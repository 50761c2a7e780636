/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_id.h - the name of a snapshot: its UTC time and a random part, so that names sort by
 * age and no two are equal: 20261123T140732.123456Z-9f3c01ab. Thread: any.
 */
#ifndef SNAPSHOT_SNAPSHOT_ID_H
#define SNAPSHOT_SNAPSHOT_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define SNAPSHOT_ID_LEN 32u

struct snapshot_id {
    char text[SNAPSHOT_ID_LEN + 1];
};

ERR_RESULT snapshot_id_make(uint64_t realtime_ns, struct snapshot_id *out_id);

/* The time in a valid one; 0 when there is no such time, or a far one. */
uint64_t snapshot_id_time_ns(const struct snapshot_id *id);

/* Is it what snapshot_id_make writes? Such a text is safe as a part of a path. */
bool snapshot_id_is_valid(const char *text);

#endif
