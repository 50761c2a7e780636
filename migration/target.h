/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target.h - one session at the target: builds a machine, fills it, and runs it on commit.
 *
 *     offered --> accepted --> receiving --> ready --commit--> running
 *         \___________\____________\___________\--> aborted
 *
 * Until the machine's process has written 'running' into the session's record the source owns the
 * guest; from then on this host does. Whatever fails before leaves nothing here but the tombstone.
 *
 * Thread: run blocks for the whole session; add: any.
 */
#ifndef MIGRATION_TARGET_H
#define MIGRATION_TARGET_H

#include <stdbool.h>
#include <sys/types.h>

#include "migration/frame_stream.h"
#include "migration/page_receivers.h"
#include "migration/session_id.h"
#include "migration/timeouts.h"

struct control_client;
struct target;

/* Where the empty machine comes from: machine_process.h, or a pretended one in tests. */
struct machine_source;
struct machine_source_ops {
    struct err *(*start)(struct machine_source *source, const char *name,
                         struct control_client **out_client, pid_t *out_pid);
    /* Its connection has been closed before it ran. */
    void (*reap)(struct machine_source *source, pid_t pid);
};
struct machine_source {
    const struct machine_source_ops *ops;
};
struct machine_source *machine_source_process(void);

struct target_config {
    const struct timeouts *timeouts;
    struct machine_source *machines;
    struct session_id route; /* what the welcome says */
};

/* Takes the connection, whose hello is still to be read, also on failure. A hello that only asks
 * about a session is answered by run. */
ERR_RESULT target_create(struct channel *channel, const struct target_config *config,
                         struct target **out_target);
void target_destroy(struct target *target); /* accepts NULL */

/* NULL: the machine runs here, or a question was answered. */
ERR_RESULT target_run(struct target *target);
bool target_has_moved(const struct target *target);

/* A data connection. Takes it, also on failure. Thread: any. */
ERR_RESULT target_add(struct target *target, struct incoming *incoming);

#endif
