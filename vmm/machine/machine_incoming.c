/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_incoming.c - the calls that fill a machine that started empty: its description, its
 * memory's source, its state. Tested by: tests/system.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "proto/section.h"
#include "vmm/machine/loop_wake.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_control_internal.h"
#include "vmm/memory/lazy_memory.h"

DEFINE_CLEANUP(sections, struct section_list, section_list_destroy)

struct err *machine_call_configure(struct machine_control *control, struct machine_call *call)
{
    const Ferry__ControlConfigure *configure = call->request->configure;

    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY, "configure"));
    if (configure->description == NULL || configure->description->config == NULL)
        return err_new(ERR_INVALID, "configure: nothing is described");
    if (configure->description->n_cpuid == 0)
        return err_new(ERR_INVALID, "configure: the description has no CPUID");
    TRY(machine_control_create_machine(control, configure->description, call->fds, call->fd_count));
    for (size_t i = 0; i < call->fd_count; i++)
        call->fds[i] = -1; /* the machine's */
    control->incoming_holder = call->connection;
    return configure->take_identity ? machine_control_listen(control) : NULL;
}

struct err *machine_call_load_state(struct machine_control *control, struct machine_call *call)
{
    CLEANUP(cleanup_sections) struct section_list *sections = NULL;

    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING,
                               "load state"));
    if (control->is_state_loaded)
        return err_new(ERR_STATE, "load state: it has been loaded already");
    if (call->request->load_state->state == NULL)
        return err_new(ERR_INVALID, "load state: there is none");
    TRY(section_list_from_message(call->request->load_state->state, &sections));
    TRY(machine_load(control->machine, sections, &control->paused));
    control->is_state_loaded = true;
    return NULL;
}

/* Thread: loader. */
static void on_end(void *context, struct err *err)
{
    struct machine_control *control = context;

    control->lazy_err = err;
    atomic_store(&control->has_loading_ended, true);
    loop_wake(control->lazy_wake);
}

void machine_incoming_finish(struct machine_control *control)
{
    struct err *err = TAKE_PTR(control->lazy_err);

    /* Until the vCPUs stand still, the loader must tell those who wait what is damaged. */
    if (err != NULL)
        machine_give_up(control->machine, err_message(err));
    lazy_memory_destroy(TAKE_PTR(control->lazy));
    machine_lending_loaded(control, err == NULL ? NULL : err_message(err));
    err_free(err);
}

struct err *machine_call_memory_source(struct machine_control *control, struct machine_call *call)
{
    const Ferry__ControlMemorySource *source = call->request->memory_source;

    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING,
                               "load memory"));
    if (control->lazy != NULL || control->is_state_loaded)
        return err_new(ERR_STATE, "load memory: it must come before the state, and once");
    if (call->fd_count != (size_t)source->file_count + 1)
        return err_new(ERR_INVALID, "load memory: %zu descriptors for an index and %u files",
                       call->fd_count, source->file_count);
    struct lazy_files files = {.fds = call->fds, .count = call->fd_count};
    return lazy_memory_start(machine_memory(control->machine), source->index_checksum, files,
                             on_end, control, &control->lazy);
}
