/* SPDX-License-Identifier: Apache-2.0 */
/*
 * precopy.h - copies the memory of a machine that runs, round after round, until the rest is small.
 *
 * Thread: one at a time.
 */
#ifndef MIGRATION_PRECOPY_H
#define MIGRATION_PRECOPY_H

#include <stdbool.h>

#include "base/err.h"
#include "migration/precopy_policy.h"

struct control_client;
struct lent_memory;
struct link;
struct page_senders;

struct precopy {
    struct control_client *control;
    struct lent_memory *memory;
    struct page_senders *senders;
    struct link *link;
    struct precopy_limits limits;
    struct precopy_progress progress;
    /* After each round; may be NULL. */
    void (*round_done)(void *context, const struct precopy_progress *progress);
    void *context;
};

/* Rounds until the guest may be stopped. ERR_STATE, with the figures and a remedy, when its rest
 * never becomes small enough. */
ERR_RESULT precopy_run(struct precopy *precopy);
/* How many pages are dirty now, into progress. */
ERR_RESULT precopy_count_rest(struct precopy *precopy);
/* All that is dirty, of a machine that stands still. *out_pages: how many there were. */
ERR_RESULT precopy_send_rest(struct precopy *precopy, uint64_t *out_pages);

#endif
