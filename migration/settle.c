/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settle.c - see settle.h. Tested by: move_test.c.
 */
#include "migration/settle.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "migration/preamble.h"

struct err *settle_ask(struct dialer *dialer, struct session_id *session,
                       Ferry__MigrationOutcome *out_outcome)
{
    CLEANUP(cleanup_frame_stream) struct frame_stream *stream = NULL;
    Ferry__MigrationFrame *frame = NULL;

    TRY(dialer_hello(dialer, &route_new_session, FERRY__MIGRATION_PURPOSE__MIGRATION_QUERY, session,
                     0, &stream));
    TRY(frame_stream_expect(stream, FERRY__MIGRATION_FRAME__BODY_ANSWER, dialer->timeouts->hello_ms,
                            &frame));
    *out_outcome = frame->answer->outcome;
    ferry__migration_frame__free_unpacked(frame, NULL);
    return NULL;
}

/* Asks once; *out_is_open: there is no answer yet, and `why` says why not. */
static struct err *ask_once(struct dialer *dialer, struct session_id *session,
                            Ferry__MigrationOutcome *out_outcome, char *why, size_t why_bytes,
                            bool *out_is_open)
{
    struct err *err = settle_ask(dialer, session, out_outcome);

    *out_is_open = true;
    if (err != NULL) {
        (void)snprintf(why, why_bytes, "%s", err_message(err));
        err_free(err);
        return NULL;
    }
    switch (*out_outcome) {
    case FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING:
    case FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED: *out_is_open = false; return NULL;
    case FERRY__MIGRATION_OUTCOME__MIGRATION_UNKNOWN:
        return err_new(
            ERR_NOT_FOUND,
            "the target has no record of this session; if its state folder was lost, "
            "find out by hand whether the machine runs there before doing anything here");
    default: (void)snprintf(why, why_bytes, "the target has not decided yet"); return NULL;
    }
}

struct err *settle_wait(struct dialer *dialer, struct session_id *session, int cancel_fd,
                        void (*waiting)(void *context, const char *why), void *context,
                        Ferry__MigrationOutcome *out_outcome)
{
    char told[512] = "";
    char why[512] = "";

    for (;;) {
        struct pollfd cancel = {.fd = cancel_fd, .events = POLLIN};
        bool is_open = false;

        TRY(ask_once(dialer, session, out_outcome, why, sizeof(why), &is_open));
        if (!is_open)
            return NULL;
        if (waiting != NULL && strcmp(why, told) != 0)
            waiting(context, why);
        memcpy(told, why, sizeof(told));
        if (poll(&cancel, 1, (int)dialer->timeouts->ask_again_ms) > 0)
            return err_new(ERR_CANCELLED, "no answer from the target yet: %s", why);
    }
}
