/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_record.h - what a target host knows about a session: did its machine run here?
 *
 *     prepared ---> running    the machine's process has been told to run
 *        |
 *        +--------> aborted    it never ran and never will
 *
 * The record is durable before the source is told that the target is ready, and leaves 'prepared'
 * once, durably, before anybody acts on it. While the session's process lives, it holds the record
 * locked and alone decides. When that process and the machine's are both gone and the record still
 * says 'prepared', nobody can run the machine any more: whoever finds that writes 'aborted'.
 *
 * It is forgotten once nobody can ask: the source says that it has acted on the answer, or was
 * never told that the target is ready.
 *
 * One file a session below the state folder's "arrivals": 16 bytes of outcome, then text lines.
 * Thread: any, one at a time for each record.
 */
#ifndef MIGRATION_SESSION_RECORD_H
#define MIGRATION_SESSION_RECORD_H

#include <sys/types.h>

#include "migration/channel.h"
#include "migration/session_id.h"
#include "proto/migration.pb-c.h"

#define SESSION_RECORD_OUTCOME_BYTES 16u

struct session_record;

/* 'prepared', durable. `machine_pid` is the process that would run the machine. ERR_STATE when
 * there is a record of this session. */
ERR_RESULT session_record_create(const struct session_id *session, const char *machine_name,
                                 const uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES],
                                 pid_t machine_pid, struct session_record **out_record);
void session_record_close(struct session_record *record); /* unlocks; accepts NULL */

/* Durable on return. Only from 'prepared'; again is fine. */
ERR_RESULT session_record_set(struct session_record *record, Ferry__MigrationOutcome outcome);
/* Nobody will ask about the session. A record that comes back with a crash does no harm. */
void session_record_forget(struct session_record *record);
/* The file's descriptor and the text that says 'running', for who writes it in our stead. */
int session_record_fd(const struct session_record *record);
const char *session_record_running_text(void);

/* Answers a source's question, and settles what nobody else can. ERR_DENIED when another
 * certificate than the asker's opened the session. */
ERR_RESULT session_record_ask(const struct session_id *session,
                              const uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES],
                              Ferry__MigrationOutcome *out_outcome);

#endif
