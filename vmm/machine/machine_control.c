/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_control.c - see machine_control.h: the table of calls, and what becomes of a connection's
 * holdings. Tested by: tests/system.
 */
#include "vmm/machine/machine_control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/log.h"
#include "vmm/machine/loop_wake.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_control_internal.h"
#include "vmm/machine/machine_settle.h"
#include "vmm/memory/lazy_memory.h"

static const struct call_row {
    Ferry__ControlRequest__CallCase call;
    machine_call_run *run;
} call_rows[] = {
    {FERRY__CONTROL_REQUEST__CALL_STATUS, machine_call_status},
    {FERRY__CONTROL_REQUEST__CALL_DESCRIBE, machine_call_describe},
    {FERRY__CONTROL_REQUEST__CALL_PAUSE, machine_call_pause},
    {FERRY__CONTROL_REQUEST__CALL_RESUME, machine_call_resume},
    {FERRY__CONTROL_REQUEST__CALL_POWER_BUTTON, machine_call_power_button},
    {FERRY__CONTROL_REQUEST__CALL_RESET, machine_call_reset},
    {FERRY__CONTROL_REQUEST__CALL_QUIT, machine_call_quit},
    {FERRY__CONTROL_REQUEST__CALL_CONSOLE, machine_call_console},
    {FERRY__CONTROL_REQUEST__CALL_LEND_MEMORY, machine_call_lend_memory},
    {FERRY__CONTROL_REQUEST__CALL_HARVEST, machine_call_harvest},
    {FERRY__CONTROL_REQUEST__CALL_RETURN_MEMORY, machine_call_return_memory},
    {FERRY__CONTROL_REQUEST__CALL_SAVE_STATE, machine_call_save_state},
    {FERRY__CONTROL_REQUEST__CALL_MARK_CUT, machine_call_mark_cut},
    {FERRY__CONTROL_REQUEST__CALL_KEEP_TRACKING, machine_call_keep_tracking},
    {FERRY__CONTROL_REQUEST__CALL_PREPARE_DISKS, machine_call_prepare_disks},
    {FERRY__CONTROL_REQUEST__CALL_FREEZE_DISKS, machine_call_freeze_disks},
    {FERRY__CONTROL_REQUEST__CALL_HAND_OVER, machine_call_hand_over},
    {FERRY__CONTROL_REQUEST__CALL_TAKE_BACK, machine_call_take_back},
    {FERRY__CONTROL_REQUEST__CALL_SWAP_LAYERS, machine_call_swap_layers},
    {FERRY__CONTROL_REQUEST__CALL_BEGIN_COPY, machine_call_begin_copy},
    {FERRY__CONTROL_REQUEST__CALL_GROW_DISK, machine_call_grow_disk},
    {FERRY__CONTROL_REQUEST__CALL_LIMIT_DISK, machine_call_limit_disk},
    {FERRY__CONTROL_REQUEST__CALL_CONFIGURE, machine_call_configure},
    {FERRY__CONTROL_REQUEST__CALL_LOAD_STATE, machine_call_load_state},
    {FERRY__CONTROL_REQUEST__CALL_MEMORY_SOURCE, machine_call_memory_source},
    {FERRY__CONTROL_REQUEST__CALL_CHECK_DISKS, machine_call_check_disks},
};

static const char *const run_state_names[] = {
    "in no state", "empty", "incoming", "running", "paused", "handed over", "failed", "off",
};

struct err *machine_control_expect(const struct machine_control *control,
                                   Ferry__ControlRunState wanted, const char *what)
{
    if (control->run_state == wanted)
        return NULL;
    const char *why = control->machine == NULL ? NULL : machine_failure(control->machine);
    return err_new(ERR_STATE, "%s: the machine is %s, not %s%s%s", what,
                   run_state_names[control->run_state], run_state_names[wanted],
                   why == NULL ? "" : ": ", why == NULL ? "" : why);
}

struct err *machine_control_expect_own_pause(const struct machine_control *control,
                                             const struct machine_call *call, const char *what)
{
    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED, what));
    if (control->pause_holder != call->connection)
        return err_new(ERR_STATE, "%s: the machine is not paused by this connection", what);
    return NULL;
}

struct err *machine_control_expect_machine(const struct machine_control *control, const char *what)
{
    return control->machine != NULL ? NULL : err_new(ERR_STATE, "%s: the machine is empty", what);
}

void machine_call_reply(struct machine_call *call, Ferry__ControlReply *reply, const int *fds,
                        size_t fd_count)
{
    control_call_reply(call->call, reply, fds, fd_count);
    call->is_answered = true;
}

void machine_control_end(struct machine_control *control, const char *reason)
{
    control->config.on_end(control->config.context, reason);
}

void machine_call_conclude(struct machine_call *call, struct err *err)
{
    if (call->is_answered)
        err_free(err);
    else if (err != NULL)
        control_call_fail(call->call, err);
    else
        control_call_done(call->call);
}

void machine_call_reply_paused(struct machine_control *control, struct machine_call *call)
{
    Ferry__ControlPaused paused = FERRY__CONTROL_PAUSED__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;

    paused.was_paused = control->is_pause_kept;
    if (!control->is_pause_kept) {
        control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED;
        control->paused_since_ns = clock_monotonic_ns();
        control->counters.pauses++;
        (void)snprintf(control->paused_by, sizeof(control->paused_by), "%s",
                       control_call_program(call->call));
    }
    paused.paused_ns = machine_last_exit_ns(control->machine);
    paused.realtime_ns = clock_realtime_ns();
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_PAUSED;
    reply.paused = &paused;
    machine_call_reply(call, &reply, NULL, 0);
}

bool machine_control_let_go(struct machine_control *control, unsigned connection)
{
    if (!control->is_pause_kept || control->pause_holder != connection)
        return false;
    control->is_pause_kept = false;
    control->pause_holder = 0;
    return true;
}

struct err *machine_control_run(struct machine_control *control)
{
    TRY(machine_resume(&control->paused));
    if (control->paused_since_ns != 0) {
        control->last_pause_ns = clock_monotonic_ns() - control->paused_since_ns;
        control->paused_total_ns += control->last_pause_ns;
    }
    control->paused_since_ns = 0;
    control->pause_holder = 0;
    control->is_pause_kept = false;
    control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING;
    return NULL;
}

static void on_machine_event(void *context, enum machine_event event)
{
    struct machine_control *control = context;

    switch (event) {
    case MACHINE_EVENT_RESET:
        control->counters.resets++;
        log_info("guest reset", "resets=%llu", (unsigned long long)control->counters.resets);
        break;
    case MACHINE_EVENT_POWER_OFF:
        control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_OFF;
        machine_control_end(control, "the guest switched itself off");
        break;
    case MACHINE_EVENT_FAILED:
        control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_FAILED;
        control->paused = NULL;
        log_error("machine failed", "reason='%s'", machine_failure(control->machine));
        break;
    }
}

struct err *machine_control_create_machine(struct machine_control *control,
                                           const Ferry__MachineDescription *description,
                                           const int *tap_fds, size_t tap_fd_count)
{
    struct machine_taps taps = {.fds = tap_fds, .count = tap_fd_count};

    TRY(machine_create(control->config.loop, description, taps, on_machine_event, control,
                       &control->machine));
    control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING;
    control->started_ns = clock_monotonic_ns();
    return NULL;
}

struct err *machine_control_listen(struct machine_control *control)
{
    Ferry__MachineDescription *description = NULL;

    if (control->is_listening)
        return NULL;
    TRY(machine_describe(control->machine, &description));
    struct err *err = control_server_listen(control->server, description->config->name);
    ferry__machine_description__free_unpacked(description, NULL);
    control->is_listening = err == NULL;
    return err;
}

struct err *machine_control_boot(struct machine_control *control,
                                 const Ferry__MachineDescription *description, const int *tap_fds,
                                 size_t tap_fd_count)
{
    TRY(machine_control_create_machine(control, description, tap_fds, tap_fd_count));
    TRY(machine_control_listen(control));
    TRY(machine_boot(control->machine, &control->paused));
    return machine_control_run(control);
}

bool machine_control_power_button(struct machine_control *control)
{
    return control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING &&
           machine_power_button(control->machine);
}

static void handle(struct control_handler *handler, struct control_call *call,
                   const Ferry__ControlRequest *request, int *fds, size_t fd_count)
{
    struct machine_control *control = CONTAINER_OF(handler, struct machine_control, handler);
    struct machine_call machine_call = {
        .call = call,
        .request = request,
        .connection = control_call_connection(call),
        .fds = fds,
        .fd_count = fd_count,
    };
    struct err *err = NULL;
    size_t i = 0;

    while (i < ARRAY_COUNT(call_rows) && call_rows[i].call != request->call_case)
        i++;
    if (i == ARRAY_COUNT(call_rows))
        err = err_new(ERR_INCOMPATIBLE, "this machine does not know call %d",
                      (int)request->call_case);
    else
        err = call_rows[i].run(control, &machine_call);
    machine_call_conclude(&machine_call, err);
}

/* After the hand-over only the target may run, whatever became of who carried it out. */
static void settle(struct machine_control *control)
{
    Ferry__MachineDescription *description = NULL;

    if (control->settle != NULL)
        return;
    struct err *err = machine_describe(control->machine, &description);
    if (err == NULL)
        err =
            machine_settle_start(control->config.loop, description->config->name, &control->settle);
    if (description != NULL)
        ferry__machine_description__free_unpacked(description, NULL);
    if (err != NULL)
        log_err(LOG_ERROR, "machine stays handed over", err);
}

static void closed(struct control_handler *handler, unsigned connection)
{
    struct machine_control *control = CONTAINER_OF(handler, struct machine_control, handler);

    machine_lending_closed(control, connection);
    machine_limits_closed(control, connection);
    if (control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY ||
        (control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING &&
         control->incoming_holder == connection)) {
        machine_control_end(control, "its maker hung up before it ran");
        return;
    }
    if (control->pause_holder != connection || machine_control_let_go(control, connection))
        return;
    control->pause_holder = 0;
    if (control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER)
        settle(control);
    if (control->run_state != FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED)
        return;
    struct err *err = machine_control_run(control);
    if (err != NULL)
        log_err(LOG_ERROR, "machine stays paused", err);
    else
        log_info("machine resumed", "because='%s hung up'", control->paused_by);
}

static const struct control_handler_ops machine_handler_ops = {
    .handle = handle,
    .closed = closed,
};

/* The loader has come to its end, one way or the other. */
static void on_loaded(void *context)
{
    struct machine_control *control = context;

    if (control->lazy != NULL && atomic_load(&control->has_loading_ended))
        machine_incoming_finish(control);
}

struct err *machine_control_create(const struct machine_control_config *config,
                                   struct machine_control **out_control)
{
    struct machine_control *control = calloc(1, sizeof(*control));
    if (control == NULL)
        return err_new(ERR_NO_MEMORY, "control of the machine");
    control->handler.ops = &machine_handler_ops;
    control->config = *config;
    control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY;
    control->started_ns = clock_monotonic_ns();

    struct err *err = loop_wake_create(config->loop, on_loaded, control, &control->lazy_wake);
    if (err == NULL)
        err = control_server_create(config->loop, &control->handler, &control->server);
    if (err != NULL) {
        machine_control_destroy(control);
        return err;
    }
    *out_control = control;
    return NULL;
}

void machine_control_destroy(struct machine_control *control)
{
    if (control == NULL)
        return;
    machine_settle_stop(control->settle);
    if (control->machine != NULL)
        machine_stop_worker(control->machine);
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control->borrowers[i].connection != 0)
            machine_lending_closed(control, control->borrowers[i].connection);
    }
    if (control->machine != NULL)
        machine_forget_prepared_disks(control->machine);
    lazy_memory_destroy(control->lazy);
    machine_destroy(control->machine);
    loop_wake_destroy(control->lazy_wake);
    err_free(control->lazy_err);
    /* Last: who waits for the machine's end takes its disks when the connection closes. */
    control_server_destroy(control->server);
    free(control->handed_to);
    free(control);
}

struct err *machine_control_adopt(struct machine_control *control, int fd)
{
    return control_server_adopt(control->server, fd);
}
