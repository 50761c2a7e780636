/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_control_internal.h - what the calls of the control protocol share.
 */
#ifndef VMM_MACHINE_MACHINE_CONTROL_INTERNAL_H
#define VMM_MACHINE_MACHINE_CONTROL_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "control/control_server.h"
#include "vmm/machine/machine_control.h"

struct dirty_consumer;
struct lazy_memory;
struct loop_wake;
struct machine;
struct machine_settle;
struct paused_machine;

#define MACHINE_SESSION_BYTES 16u

/* Name, unit, field: what a machine counts, as status shows it. */
#define MACHINE_COUNTERS(X)                                                                        \
    X(pauses, "pauses")                                                                            \
    X(resets, "resets")                                                                            \
    X(borrowers, "connections")                                                                    \
    X(harvests, "calls")                                                                           \
    X(state_saves, "calls")                                                                        \
    X(disk_freezes, "calls")

struct machine_counters {
#define X(name, unit) uint64_t name;
    MACHINE_COUNTERS(X)
#undef X
};

struct machine_borrower {
    unsigned connection; /* 0: free */
    struct dirty_consumer *consumer;
};

struct machine_control {
    struct control_handler handler;
    struct machine_control_config config;
    struct control_server *server;
    struct machine *machine;       /* NULL: empty */
    struct paused_machine *paused; /* of machine, while it stands still and is whole */
    Ferry__ControlRunState run_state;
    bool is_listening;
    bool is_state_loaded;

    unsigned pause_holder;    /* connections; 0: none */
    bool is_pause_kept;       /* it was paused before it was held, and stays so */
    unsigned incoming_holder; /* the machine goes with it until it is resumed */
    unsigned prepare_holder;
    bool is_preparing; /* for it, or for one that has closed since */
    struct machine_borrower borrowers[CONTROL_CLIENTS_MAX];
    unsigned describers[CONTROL_CLIENTS_MAX]; /* connections that have the description; 0: free */

    struct lazy_memory *lazy; /* while memory is loaded on demand */
    struct loop_wake *lazy_wake;
    /* Set by the loader (release) after it wrote lazy_err, and read by the loop (acquire). */
    atomic_bool has_loading_ended;
    struct err *lazy_err;
    struct control_call *waiting[CONTROL_CLIENTS_MAX]; /* lend calls, until all is loaded */
    char waiting_parent[CONTROL_CLIENTS_MAX][SNAPSHOT_ID_MAX + 1];

    char *handed_to; /* owned; while it is handed over */
    uint8_t handed_session[MACHINE_SESSION_BYTES];
    struct machine_settle *settle;

    char paused_by[64];
    uint64_t started_ns;
    uint64_t paused_since_ns;
    uint64_t paused_total_ns;
    uint64_t last_pause_ns;
    struct machine_counters counters;
    bool is_speed_known;
    bool is_interpreted;
};

struct machine_call {
    struct control_call *call;
    const Ferry__ControlRequest *request;
    unsigned connection;
    int *fds;
    size_t fd_count;
    bool is_answered;
};

/* Each answers the call, or leaves it to the caller to say "done" or the error. */
typedef struct err *machine_call_run(struct machine_control *control, struct machine_call *call);
machine_call_run machine_call_status, machine_call_describe, machine_call_pause,
    machine_call_resume, machine_call_power_button, machine_call_reset, machine_call_quit,
    machine_call_console;
machine_call_run machine_call_lend_memory, machine_call_harvest, machine_call_return_memory,
    machine_call_save_state, machine_call_mark_cut, machine_call_keep_tracking;
machine_call_run machine_call_prepare_disks, machine_call_freeze_disks, machine_call_check_disks,
    machine_call_swap_layers, machine_call_begin_copy, machine_call_grow_disk,
    machine_call_limit_disk, machine_call_hand_over, machine_call_take_back;
/* As "pause", of a machine that runs; machine_call_pause is for others, too. */
machine_call_run machine_call_pause_later;
machine_call_run machine_call_configure, machine_call_load_state, machine_call_memory_source;

void machine_call_reply(struct machine_call *call, Ferry__ControlReply *reply, const int *fds,
                        size_t fd_count);
/* The end of a call: "done", or the error, unless it was answered. */
void machine_call_conclude(struct machine_call *call, struct err *err);

/* ERR_STATE unless the machine is in that state; the error begins with `what`. */
ERR_RESULT machine_control_expect(const struct machine_control *control,
                                  Ferry__ControlRunState wanted, const char *what);
/* Paused, and by this connection. */
ERR_RESULT machine_control_expect_own_pause(const struct machine_control *control,
                                            const struct machine_call *call, const char *what);
ERR_RESULT machine_control_expect_machine(const struct machine_control *control, const char *what);

ERR_RESULT machine_control_create_machine(struct machine_control *control,
                                          const Ferry__MachineDescription *description,
                                          const int *tap_fds, size_t tap_fd_count);
ERR_RESULT machine_control_listen(struct machine_control *control);
ERR_RESULT machine_control_run(struct machine_control *control); /* resume, and keep the books */
/* The machine has been paused by this call: keeps the books and says when. */
/* Ends the hold of a machine that was paused before; false: it was not. */
bool machine_control_let_go(struct machine_control *control, unsigned connection);
void machine_call_reply_paused(struct machine_control *control, struct machine_call *call);
void machine_control_end(struct machine_control *control, const char *reason);

/* A connection has been told the description, and closes. */
void machine_limits_hold(struct machine_control *control, unsigned connection);
void machine_limits_closed(struct machine_control *control, unsigned connection);

/* Undo for a connection that closed. */
void machine_lending_closed(struct machine_control *control, unsigned connection);
/* Memory is all there now, or will never be: answers the lend calls that waited. */
void machine_lending_loaded(struct machine_control *control, const char *failure);
void machine_incoming_finish(struct machine_control *control);

#endif
