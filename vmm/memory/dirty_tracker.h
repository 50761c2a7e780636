/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty_tracker.h - which guest pages changed since they were last handed out, for several readers
 * at once. dirty_tracker.c says how it works.
 * Thread: loop only.
 */
#ifndef VMM_MEMORY_DIRTY_TRACKER_H
#define VMM_MEMORY_DIRTY_TRACKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct dirty_consumer;
struct dirty_log;
struct dirty_tracker;
struct guest_memory;

/* Both must outlive it. */
ERR_RESULT dirty_tracker_create(struct guest_memory *memory, struct dirty_log *log,
                                struct dirty_tracker **out_tracker);
void dirty_tracker_destroy(struct dirty_tracker *tracker); /* accepts NULL; no consumers are left */

/* A new reader. With `since` the name of the kept snapshot, it begins with the changes since then;
 * otherwise (also NULL) with every page. */
ERR_RESULT dirty_tracker_attach(struct dirty_tracker *tracker, const char *since,
                                struct dirty_consumer **out_consumer);
void dirty_consumer_detach(struct dirty_consumer *consumer); /* accepts NULL */

int dirty_consumer_fd(const struct dirty_consumer *consumer); /* the shared bitmap's file */
bool dirty_consumer_is_incremental(const struct dirty_consumer *consumer);

/* Adds what changed in the range to every reader's bitmap, and tracks the range anew. The range is
 * widened to multiples of 64 pages; count 0 is everything. *out_dirty: pages set in this one's. */
ERR_RESULT dirty_consumer_harvest(struct dirty_consumer *consumer, uint64_t first, uint64_t count,
                                  uint64_t *out_dirty);

/* Everything that changes from here on is after the cut. Before it, this reader has harvested. */
ERR_RESULT dirty_consumer_mark_cut(struct dirty_consumer *consumer);
/* Keeps the changes since the cut under the snapshot's name, in place of the earlier snapshot.
 * ERR_STATE without a cut. */
ERR_RESULT dirty_consumer_keep(struct dirty_consumer *consumer, const char *snapshot);

#endif
