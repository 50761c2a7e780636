/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_slow_calls.c - the calls that wait for disks: the machine's worker does that part, and
 * the loop answers when it has been done.
 *
 * Meanwhile the loop serves other connections, so everything that was true when the call came is
 * asked again: the machine may have stopped, and whoever called may have hung up.
 * Tested by: tests/system.
 */
#include <stdlib.h>

#include "base/checked_math.h"
#include "base/log.h"
#include "base/test_hook.h"
#include "vmm/machine/loop_worker.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_control_internal.h"

struct slow_call {
    struct loop_job job;
    struct machine_control *control;
    struct control_call *call;            /* unanswered */
    const Ferry__ControlRequest *request; /* of the call */
    struct machine *machine;
    unsigned connection;
    /* Thread: worker. */
    struct err *(*work)(struct machine *machine, const Ferry__ControlRequest *request);
    /* Thread: loop. What is left to do; takes the error of the work. May answer the call. */
    struct err *(*finish)(struct machine_control *control, struct machine_call *call,
                          struct err *err);
};

static struct err *run(struct loop_job *job)
{
    struct slow_call *slow = CONTAINER_OF(job, struct slow_call, job);

    return slow->work(slow->machine, slow->request);
}

static void done(struct loop_job *job, struct err *err)
{
    struct slow_call *slow = CONTAINER_OF(job, struct slow_call, job);
    struct machine_call call = {
        .call = slow->call, .request = slow->request, .connection = slow->connection};

    machine_call_conclude(&call, slow->finish(slow->control, &call, err));
    free(slow);
}

static struct err *begin(struct machine_control *control, struct machine_call *call,
                         struct slow_call slow)
{
    struct slow_call *begun = malloc(sizeof(*begun));
    if (begun == NULL)
        return err_new(ERR_NO_MEMORY, "control request");

    *begun = slow;
    begun->job = (struct loop_job){.run = run, .done = done};
    begun->control = control;
    begun->call = call->call;
    begun->request = call->request;
    begun->machine = control->machine;
    begun->connection = call->connection;
    struct err *err = machine_do_later(control->machine, &begun->job);
    if (err != NULL)
        free(begun);
    else
        call->is_answered = true; /* by `done` */
    return err;
}

static bool has_hung_up(const struct machine_call *call)
{
    return control_call_connection(call->call) == 0;
}

static struct err *pass(struct machine_control *control, struct machine_call *call, struct err *err)
{
    (void)control;
    (void)call;
    return err;
}

static struct err *flush(struct machine *machine, const Ferry__ControlRequest *request)
{
    (void)request;
    test_hook("vm-run flush disks");
    return machine_flush_disks(machine);
}

/* Pauses the machine whose disks have been flushed, unless something has come in between. */
static struct err *pause_flushed(struct machine_control *control, const struct machine_call *call,
                                 const char *what, struct err *err)
{
    if (err != NULL)
        return err_wrap(err, "%s", what);
    if (has_hung_up(call))
        return err_new(ERR_CANCELLED, "%s: the connection is closed", what);
    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING, what));
    return machine_pause(control->machine, &control->paused);
}

static struct err *finish_pause(struct machine_control *control, struct machine_call *call,
                                struct err *err)
{
    TRY(pause_flushed(control, call, "pause", err));
    control->pause_holder = call->request->pause->hold != 0 ? call->connection : 0;
    machine_call_reply_paused(control, call);
    return NULL;
}

/* Most of what must be durable goes out while the guest runs, so that the flush in the pause finds
 * little. */
struct err *machine_call_pause_later(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING, "pause"));
    return begin(control, call, (struct slow_call){.work = flush, .finish = finish_pause});
}

static struct err *finish_reset(struct machine_control *control, struct machine_call *call,
                                struct err *err)
{
    TRY(pause_flushed(control, call, "reset", err));
    err = machine_reset(control->paused);
    struct err *resume_err = machine_control_run(control);
    if (err == NULL)
        control->counters.resets++;
    if (err != NULL)
        err_free(resume_err);
    return err != NULL ? err : resume_err;
}

struct err *machine_call_reset(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING, "reset"));
    return begin(control, call, (struct slow_call){.work = flush, .finish = finish_reset});
}

static void reply_disk_size(struct machine_call *call, uint64_t virtual_bytes)
{
    Ferry__ControlDiskSize size = FERRY__CONTROL_DISK_SIZE__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;

    size.virtual_bytes = virtual_bytes;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_DISK_SIZE;
    reply.disk_size = &size;
    machine_call_reply(call, &reply, NULL, 0);
}

static struct err *finish_grow(struct machine_control *control, struct machine_call *call,
                               struct err *err)
{
    const Ferry__ControlGrowDisk *request = call->request->grow_disk;
    struct machine_growth growth = {
        .disk_id = request->disk, .bytes = request->bytes, .is_more = request->is_more};
    uint64_t virtual_bytes = 0;

    TRY(pause_flushed(control, call, "grow a disk", err));
    err = machine_grow_disk(control->paused, growth, &virtual_bytes);
    struct err *resume_err = machine_control_run(control);
    if (err != NULL) {
        err_free(resume_err);
        return err;
    }
    TRY(resume_err);
    log_info("disk grown", "disk='%s' bytes=%llu", growth.disk_id,
             (unsigned long long)virtual_bytes);
    reply_disk_size(call, virtual_bytes);
    return NULL;
}

struct err *machine_call_grow_disk(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING,
                               "grow a disk"));
    return begin(control, call, (struct slow_call){.work = flush, .finish = finish_grow});
}

static struct err *prepare_disks(struct machine *machine, const Ferry__ControlRequest *request)
{
    (void)request;
    TRY(machine_prepare_disks(machine));
    test_hook("vm-run prepare disks");
    return NULL;
}

/* Who prepared them may be gone, and somebody else may have asked for others since, which then
 * replace these. */
static struct err *finish_prepare(struct machine_control *control, struct machine_call *call,
                                  struct err *err)
{
    control->is_preparing =
        control->prepare_holder != 0 && control->prepare_holder != call->connection;
    if (control->is_preparing)
        return err;
    if (err != NULL)
        control->prepare_holder = 0;
    else if (control->prepare_holder == 0)
        machine_forget_prepared_disks(control->machine);
    return err;
}

struct err *machine_call_prepare_disks(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect_machine(control, "prepare disks"));
    if (control->prepare_holder != 0 && control->prepare_holder != call->connection)
        return err_new(ERR_STATE,
                       "prepare disks: another program is saving the machine; try again when it "
                       "has ended");
    TRY(begin(control, call, (struct slow_call){.work = prepare_disks, .finish = finish_prepare}));
    control->prepare_holder = call->connection;
    control->is_preparing = true;
    return NULL;
}

static struct err *swap_layers(struct machine *machine, const Ferry__ControlRequest *request)
{
    const Ferry__ControlSwapLayers *swap = request->swap_layers;
    unsigned gone = 0;

    TRY(machine_swap_layers(machine, swap->disk, swap->path, &gone));
    log_info("layers merged", "disk='%s' layer='%s' gone=%u", swap->disk, swap->path, gone);
    return NULL;
}

struct err *machine_call_swap_layers(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect_machine(control, "swap layers"));
    return begin(control, call, (struct slow_call){.work = swap_layers, .finish = pass});
}

static struct err *begin_copy(struct machine *machine, const Ferry__ControlRequest *request)
{
    return machine_begin_copy(machine, request->begin_copy->disk, request->begin_copy->tracker);
}

struct err *machine_call_begin_copy(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect_machine(control, "begin a copy"));
    return begin(control, call, (struct slow_call){.work = begin_copy, .finish = pass});
}

static struct err *check_disks(struct machine *machine, const Ferry__ControlRequest *request)
{
    (void)request;
    return machine_check_disks(machine);
}

struct err *machine_call_check_disks(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect_machine(control, "check disks"));
    return begin(control, call, (struct slow_call){.work = check_disks, .finish = pass});
}
