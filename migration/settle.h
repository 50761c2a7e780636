/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settle.h - what became of a session whose commit was not answered: asks the target until it says.
 *
 * Never guesses: while the target does not answer, or has not decided, the question stays open and
 * the machine stays paused at the source. Thread: any; calls block.
 */
#ifndef MIGRATION_SETTLE_H
#define MIGRATION_SETTLE_H

#include "migration/dialer.h"
#include "migration/session_id.h"

/* One question. */
ERR_RESULT settle_ask(struct dialer *dialer, struct session_id *session,
                      Ferry__MigrationOutcome *out_outcome);

/* Asks until the answer is RUNNING or ABORTED, or cancel_fd becomes readable (ERR_CANCELLED), or
 * the target says that it knows no such session (ERR_NOT_FOUND). `waiting`, which may be NULL, is
 * told why there is no answer yet, once for each new reason. */
ERR_RESULT settle_wait(struct dialer *dialer, struct session_id *session, int cancel_fd,
                       void (*waiting)(void *context, const char *why), void *context,
                       Ferry__MigrationOutcome *out_outcome);

#endif
