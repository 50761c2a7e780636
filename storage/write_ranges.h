/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write_ranges.h - which bytes of a file are being written, so that changing a part of a block can
 * not undo what another writer puts beside it.
 *
 * A plain range is written as it is; plain ones never wait for each other. An exclusive one is
 * read, changed and written back: it waits for every range that it touches, and those that come
 * later wait for it. A thread has one range at a time. Thread: any.
 */
#ifndef STORAGE_WRITE_RANGES_H
#define STORAGE_WRITE_RANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"

struct write_range {
    struct write_range *next;
    uint64_t first;
    uint64_t end; /* behind the last byte */
};

struct write_ranges {
    struct lock lock;
    struct lock_condition changed;
    struct write_range *plain GUARDED_BY(&lock);
    struct write_range *exclusive GUARDED_BY(&lock); /* the newest first; also those that wait */
};

void write_ranges_init(struct write_ranges *ranges);
void write_ranges_finish(struct write_ranges *ranges);

/* first and end are set by the caller, who keeps the range until it has ended it. */
void write_ranges_begin(struct write_ranges *ranges, struct write_range *range);
void write_ranges_begin_exclusive(struct write_ranges *ranges, struct write_range *range);
/* False instead of waiting. */
bool write_ranges_try_begin(struct write_ranges *ranges, struct write_range *range);
void write_ranges_end(struct write_ranges *ranges, struct write_range *range);

#endif
