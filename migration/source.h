/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h - moves one running machine to another host.
 *
 * Thread: run blocks until the machine has moved, runs here again, or its fate is open; cancel and
 * counts: any.
 */
#ifndef MIGRATION_SOURCE_H
#define MIGRATION_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "migration/dialer.h"
#include "migration/precopy_policy.h"
#include "proto/page_encoder.h"

struct control_client;
struct source;

/* What happens, as it happens; on the thread of source_run. */
struct move_observer;
struct move_observer_ops {
    void (*phase)(struct move_observer *observer, const char *name);
    void (*round)(struct move_observer *observer, const struct precopy_progress *progress);
    /* The commit was not answered; the target is being asked. */
    void (*waiting)(struct move_observer *observer, const char *why);
};
struct move_observer {
    const struct move_observer_ops *ops;
};

struct source_config {
    const char *name;   /* of the machine */
    const char *target; /* HOST:PORT, for the hand-over and for messages */
    struct control_client *control;
    struct dialer *dialer;
    struct move_observer *observer;
    uint32_t channels;
    uint64_t bytes_per_second; /* 0: no limit */
    struct precopy_limits limits;
};

struct move_report {
    uint32_t rounds;
    struct page_counts pages;
    uint64_t memory_pages; /* of the machine */
    uint64_t rest_pages;   /* sent in the blackout */
    uint64_t state_bytes;
    uint64_t total_ns;
    uint64_t blackout_predicted_ns;
    uint64_t blackout_ns; /* 0: not known */
    uint64_t round_trip_ns;
};

ERR_RESULT source_create(const struct source_config *config, struct source **out_source);
void source_destroy(struct source *source); /* accepts NULL */

/* NULL: the guest runs at the target, and the machine's process here has been told to end. An
 * error: it runs here as before; unless source_is_open, then nobody knows and it stays paused. */
ERR_RESULT source_run(struct source *source);
bool source_is_open(const struct source *source);
struct move_report source_report(const struct source *source);

/* Ends the move, if it has not been committed. Thread: any. */
void source_cancel(struct source *source);
/* Pages sent so far, and their bytes; zeros before and after pages are sent. Thread: any. */
struct page_counts source_counts(struct source *source);

/* A machine that was handed over and waits here, paused. */
struct handed_machine {
    const char *name;
    struct control_client *control;
    struct session_id session;
};

/* What became of it: finishes the move, or takes the machine back and resumes it. *out_runs_there
 * says which. */
ERR_RESULT source_settle(struct handed_machine *machine, struct dialer *dialer, int cancel_fd,
                         struct move_observer *observer, bool *out_runs_there);

#endif
