/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_fake_internal.h - what the parts of the pretended machine share.
 *
 * Thread: the machine's loop.
 */
#ifndef CONTROL_MACHINE_FAKE_INTERNAL_H
#define CONTROL_MACHINE_FAKE_INTERNAL_H

#include "base/event_loop.h"
#include "base/limits.h"
#include "control/control_server.h"
#include "control/guest_fake.h"
#include "control/machine_fake.h"
#include "control/tracker_fake.h"

struct machine_fake {
    struct control_handler handler;
    struct event_loop *loop;       /* owned */
    struct control_server *server; /* owned */
    struct thread *thread;         /* owned */
    int console_fd;                /* owned; our end of the latest console; -1: none */
    int end_fd;                    /* owned; readable when the process would end */

    Ferry__MachineDescription *description; /* owned; NULL while empty */
    struct guest_fake *guest;               /* owned; NULL while empty */
    struct tracker_fake *tracker;           /* owned; NULL while empty */
    Ferry__ControlRunState run_state;
    bool is_state_loaded;
    bool is_listening;
    bool has_quit;
    unsigned pause_holder;             /* the connection whose closing resumes; 0: none */
    bool is_pause_kept;                /* it was paused before it was held, and stays so */
    unsigned incoming_holder;          /* the connection that builds the machine; 0: none */
    unsigned prepare_holder;           /* the connection that prepared overlays; 0: none */
    char *prepared[MACHINE_DISKS_MAX]; /* owned; overlay paths */
    unsigned overlay_count;
    char *handed_to; /* owned */
    uint8_t handed_session[16];
    uint64_t started_ns, paused_total_ns, last_pause_ns;
    uint64_t paused_at_ns, first_run_ns, last_exit_ns, entered_ns;
};

/* One call while it is being handled. An error returned is the answer; without one and without an
 * own answer, "done" is. */
struct fake_call {
    struct control_call *call;
    const Ferry__ControlRequest *request;
    int *fds;
    size_t fd_count;
    unsigned connection;
    bool is_answered;
};

void fake_call_reply(struct fake_call *call, Ferry__ControlReply *reply, const int *fds,
                     size_t fd_count);

ERR_RESULT machine_fake_create_guest(struct machine_fake *machine,
                                     const Ferry__MachineDescription *description);
void machine_fake_destroy_guest(struct machine_fake *machine); /* empty again */
void machine_fake_run(struct machine_fake *machine);
void machine_fake_stand_still(struct machine_fake *machine);
void machine_fake_quit(struct machine_fake *machine); /* as soon as the loop turns */
void machine_fake_tell_end(struct machine_fake *machine);

/* machine_fake_calls.c */
ERR_RESULT machine_fake_handle(struct machine_fake *machine, struct fake_call *call);
void machine_fake_undo(struct machine_fake *machine, unsigned connection);
void machine_fake_forget_prepared(struct machine_fake *machine); /* removes the overlays */

#endif
