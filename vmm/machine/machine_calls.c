/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_calls.c - the calls of the control protocol that ask about a machine or run it.
 * Tested by: tests/system.
 */
#include <stdio.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/test_hook.h"
#include "control/resume_record.h"
#include "vmm/kvm/kvm_speed.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_control_internal.h"
#include "vmm/memory/lazy_memory.h"

#define COUNTERS_MAX 16u

static bool is_interpreted(struct machine_control *control)
{
    if (!control->is_speed_known) {
        /* What can not be measured is not reported as slow. */
        err_free(kvm_speed_measure(&control->is_interpreted));
        control->is_speed_known = true;
    }
    return control->is_interpreted;
}

static void describe_state(const struct machine_control *control, char *out_text, size_t len)
{
    const char *failure = control->machine == NULL ? NULL : machine_failure(control->machine);

    *out_text = '\0';
    if (failure != NULL)
        (void)snprintf(out_text, len, "%s", failure);
    else if (control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED)
        (void)snprintf(out_text, len, "paused by %s", control->paused_by);
    else if (control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER)
        (void)snprintf(out_text, len, "handed over to %s, which is asked what became of it",
                       control->handed_to);
}

static size_t fill_counters(const struct machine_control *control, Ferry__Counter *counters)
{
    size_t count = 0;

#define X(field, counter_unit)                                                                     \
    ferry__counter__init(&counters[count]);                                                        \
    counters[count].name = (char *)(uintptr_t)#field;                                              \
    counters[count].unit = (char *)(uintptr_t)(counter_unit);                                      \
    counters[count++].value = control->counters.field;
    MACHINE_COUNTERS(X)
#undef X
    return count;
}

static void fill_times(const struct machine_control *control, Ferry__ControlStatus *status)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t standing = control->paused_since_ns == 0 ? 0 : now - control->paused_since_ns;

    status->uptime_ms = (now - control->started_ns) / NS_PER_MS;
    status->paused_ms = (control->paused_total_ns + standing) / NS_PER_MS;
    status->last_pause_us = control->last_pause_ns / NS_PER_US;
    if (control->machine != NULL) {
        status->first_run_ns = machine_first_run_ns(control->machine);
        status->last_exit_ns = machine_last_exit_ns(control->machine);
        status->entered_ns = machine_entered_ns(control->machine);
    }
}

struct err *machine_call_status(struct machine_control *control, struct machine_call *call)
{
    Ferry__ControlStatus status = FERRY__CONTROL_STATUS__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    Ferry__MachineDescription *description = NULL;
    Ferry__Counter counters[COUNTERS_MAX];
    Ferry__Counter *counter_list[COUNTERS_MAX];
    char detail[512];
    char problems[MACHINE_DISKS_MAX][MACHINE_PROBLEM_BYTES];
    char *problem_list[MACHINE_DISKS_MAX];

    if (control->machine != NULL) {
        TRY(machine_describe(control->machine, &description));
        status.n_problems = machine_disk_problems(control->machine, problems);
    }
    for (size_t i = 0; i < status.n_problems; i++)
        problem_list[i] = problems[i];
    status.problems = problem_list;
    describe_state(control, detail, sizeof(detail));
    status.state = control->run_state;
    status.detail = detail;
    status.config = description == NULL ? NULL : description->config;
    status.is_interpreted = is_interpreted(control);
    fill_times(control, &status);
    if (control->lazy != NULL)
        status.memory_loading_bytes = lazy_memory_left_bytes(control->lazy);
    if (control->handed_to != NULL) {
        status.handed_to = control->handed_to;
        status.handed_session.data = control->handed_session;
        status.handed_session.len = MACHINE_SESSION_BYTES;
    }
    status.n_counters = fill_counters(control, counters);
    for (size_t i = 0; i < status.n_counters; i++)
        counter_list[i] = &counters[i];
    status.counters = counter_list;

    reply.result_case = FERRY__CONTROL_REPLY__RESULT_STATUS;
    reply.status = &status;
    machine_call_reply(call, &reply, NULL, 0);
    if (description != NULL)
        ferry__machine_description__free_unpacked(description, NULL);
    return NULL;
}

struct err *machine_call_describe(struct machine_control *control, struct machine_call *call)
{
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    Ferry__MachineDescription *description = NULL;

    TRY(machine_control_expect_machine(control, "describe"));
    TRY(machine_describe(control->machine, &description));
    machine_limits_hold(control, call->connection);
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_DESCRIPTION;
    reply.description = description;
    machine_call_reply(call, &reply, NULL, 0);
    ferry__machine_description__free_unpacked(description, NULL);
    return NULL;
}

/* What an incoming machine needs before it can run, or be left to others as it is. */
static struct err *complete_incoming(struct machine_control *control)
{
    if (!control->is_state_loaded)
        return err_new(ERR_STATE, "the machine's state has not been loaded");
    TRY(machine_control_listen(control));
    control->incoming_holder = 0;
    return NULL;
}

static bool is_to_be_kept_paused(const struct machine_control *control,
                                 const Ferry__ControlPause *pause)
{
    return pause->hold && pause->or_paused && control->pause_holder == 0 &&
           control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED;
}

/* One that is paused and is to be held so, or an incoming one that is to be left paused. */
struct err *machine_call_pause(struct machine_control *control, struct machine_call *call)
{
    if (is_to_be_kept_paused(control, call->request->pause)) {
        control->pause_holder = call->connection;
        control->is_pause_kept = true;
        machine_call_reply_paused(control, call);
        return NULL;
    }
    if (control->run_state != FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING ||
        call->request->pause->hold != 0)
        return machine_call_pause_later(control, call);
    TRY(complete_incoming(control));
    TRY(machine_open_disks(control->paused));
    machine_call_reply_paused(control, call);
    return NULL;
}

struct err *machine_call_resume(struct machine_control *control, struct machine_call *call)
{
    if (machine_control_let_go(control, call->connection))
        return NULL;
    /* A guest that runs may wait for a disk. */
    if (control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING &&
        machine_retry_disks(control->machine))
        return NULL;
    if (control->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING)
        TRY(complete_incoming(control));
    else
        TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED, "resume"));
    /* The record says that the machine ran: whatever is likely to fail comes before it. */
    TRY(machine_open_disks(control->paused));
    TRY(resume_record_write(call->request->resume, call->fds, call->fd_count));
    test_hook("vm-run resume");
    return machine_control_run(control);
}

struct err *machine_call_power_button(struct machine_control *control, struct machine_call *call)
{
    (void)call;
    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING,
                               "press the power button"));
    (void)machine_power_button(control->machine);
    return NULL;
}

struct err *machine_call_quit(struct machine_control *control, struct machine_call *call)
{
    char reason[256];

    (void)snprintf(reason, sizeof(reason), "%s",
                   *call->request->quit->reason == '\0' ? "told to quit"
                                                        : call->request->quit->reason);
    control_call_done(call->call);
    call->is_answered = true;
    machine_control_end(control, reason);
    return NULL;
}

struct err *machine_call_console(struct machine_control *control, struct machine_call *call)
{
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    Ferry__ControlNothing nothing = FERRY__CONTROL_NOTHING__INIT;
    CLEANUP(cleanup_fd) int fd = -1;

    TRY(machine_control_expect_machine(control, "console"));
    TRY(machine_open_console(control->machine, &fd));
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_DONE;
    reply.done = &nothing;
    machine_call_reply(call, &reply, &fd, 1);
    return NULL;
}
