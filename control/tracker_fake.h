/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracker_fake.h - dirty tracking for several borrowers, as control.proto promises it, without KVM.
 *
 * One log collects marks. A harvest takes them out of the log and adds them to the bitmap of every
 * borrower and to the two of the snapshot chain: changes since the last snapshot that was kept, and
 * changes since the cut of the one that is being taken. A snapshot that fails drops only the
 * latter. Thread: loop, but for mark.
 */
#ifndef CONTROL_TRACKER_FAKE_H
#define CONTROL_TRACKER_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tracker_fake;

ERR_RESULT tracker_fake_create(uint64_t page_count, struct tracker_fake **out_tracker);
void tracker_fake_destroy(struct tracker_fake *tracker); /* accepts NULL */

/* After the page was written. Thread: any. */
void tracker_fake_mark(struct tracker_fake *tracker, uint64_t page);

/* Begins to track for a connection. parent_snapshot NULL: everything is dirty at first. The
 * bitmap's fd stays the tracker's. */
ERR_RESULT tracker_fake_lend(struct tracker_fake *tracker, unsigned connection,
                             const char *parent_snapshot, int *out_bitmap_fd,
                             bool *out_is_incremental);
void tracker_fake_return(struct tracker_fake *tracker, unsigned connection); /* also if none */

unsigned tracker_fake_borrowers(const struct tracker_fake *tracker);

/* page_count 0: all. *out_dirty: pages set in the connection's bitmap. */
ERR_RESULT tracker_fake_harvest(struct tracker_fake *tracker, unsigned connection,
                                uint64_t first_page, uint64_t page_count, uint64_t *out_dirty);
ERR_RESULT tracker_fake_mark_cut(struct tracker_fake *tracker, unsigned connection);
ERR_RESULT tracker_fake_keep(struct tracker_fake *tracker, unsigned connection,
                             const char *snapshot);

#endif
