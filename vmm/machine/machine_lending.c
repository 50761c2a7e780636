/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_lending.c - the calls by which workers borrow memory, take state, and freeze or take
 * over disks; and what is undone when they hang up. Tested by: tests/system.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/test_hook.h"
#include "proto/section.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_control_internal.h"
#include "vmm/machine/machine_settle.h"
#include "vmm/memory/dirty_tracker.h"
#include "vmm/memory/guest_memory.h"

DEFINE_CLEANUP(sections, struct section_list, section_list_destroy)

static struct machine_borrower *find_borrower(struct machine_control *control, unsigned connection)
{
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control->borrowers[i].connection == connection)
            return &control->borrowers[i];
    }
    return NULL;
}

static struct err *find_consumer(struct machine_control *control, const struct machine_call *call,
                                 const char *what, struct dirty_consumer **out_consumer)
{
    struct machine_borrower *borrower = find_borrower(control, call->connection);

    if (borrower == NULL)
        return err_new(ERR_STATE, "%s: this connection has not borrowed the memory", what);
    *out_consumer = borrower->consumer;
    return NULL;
}

static struct err *add_borrower(struct machine_control *control, unsigned connection,
                                const char *parent, struct machine_borrower **out_borrower)
{
    if (find_borrower(control, connection) != NULL)
        return err_new(ERR_STATE, "lend memory: this connection has borrowed it already");
    struct machine_borrower *borrower = find_borrower(control, 0);
    if (borrower == NULL)
        return err_new(ERR_STATE, "lend memory: %u connections have borrowed it already",
                       CONTROL_CLIENTS_MAX);
    TRY(dirty_tracker_attach(machine_tracker(control->machine), parent, &borrower->consumer));
    borrower->connection = connection;
    control->counters.borrowers++;
    *out_borrower = borrower;
    return NULL;
}

/* A reader's own view of the memory file, which it can not write through. */
static struct err *open_read_only(int fd, int *out_fd)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    *out_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*out_fd < 0)
        return err_errno(errno, "lend memory: open '%s' for reading", path);
    return NULL;
}

static void reply_memory(struct machine_control *control, struct control_call *call, const int *fds,
                         size_t fd_count, bool is_incremental)
{
    struct guest_memory *memory = machine_memory(control->machine);
    Ferry__MemoryRegion regions[MACHINE_REGIONS_MAX];
    Ferry__MemoryRegion *region_list[MACHINE_REGIONS_MAX];
    Ferry__ControlMemory lent = FERRY__CONTROL_MEMORY__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;

    lent.n_regions = guest_memory_region_count(memory);
    lent.regions = region_list;
    lent.is_incremental = is_incremental;
    for (size_t i = 0; i < lent.n_regions; i++) {
        const struct guest_region region = guest_memory_region(memory, i);
        ferry__memory_region__init(&regions[i]);
        regions[i].guest_address = region.start.value;
        regions[i].bytes = region.bytes;
        regions[i].file_offset = region.file_offset;
        region_list[i] = &regions[i];
    }
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_MEMORY;
    reply.memory = &lent;
    control_call_reply(call, &reply, fds, fd_count);
}

/* Answers the call, unless there is an error. */
static struct err *lend_tracked(struct machine_control *control, struct control_call *call,
                                unsigned connection, const char *parent)
{
    struct machine_borrower *borrower = NULL;
    CLEANUP(cleanup_fd) int memory_fd = -1;

    TRY(open_read_only(guest_memory_fd(machine_memory(control->machine)), &memory_fd));
    TRY(add_borrower(control, connection, parent, &borrower));
    const int fds[] = {memory_fd, dirty_consumer_fd(borrower->consumer)};
    reply_memory(control, call, fds, 2, dirty_consumer_is_incremental(borrower->consumer));
    return NULL;
}

/* Memory that is still arriving from a snapshot can not be read by others: they wait. */
static struct err *wait_for_memory(struct machine_control *control, struct machine_call *call,
                                   const char *parent)
{
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control->waiting[i] != NULL)
            continue;
        control->waiting[i] = call->call;
        (void)snprintf(control->waiting_parent[i], sizeof(control->waiting_parent[i]), "%s",
                       parent);
        call->is_answered = true;
        return NULL;
    }
    return err_new(ERR_STATE, "lend memory: too many connections wait for it");
}

void machine_lending_loaded(struct machine_control *control, const char *failure)
{
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        struct control_call *call = TAKE_PTR(control->waiting[i]);
        if (call == NULL)
            continue;
        unsigned connection = control_call_connection(call);
        struct err *err = NULL;
        if (failure != NULL || connection == 0)
            err = err_new(ERR_STATE, "lend memory: %s",
                          failure != NULL ? failure : "the connection is closed");
        else
            err = lend_tracked(control, call, connection, control->waiting_parent[i]);
        if (err != NULL)
            control_call_fail(call, err);
    }
}

struct err *machine_call_lend_memory(struct machine_control *control, struct machine_call *call)
{
    const Ferry__ControlLendMemory *lend = call->request->lend_memory;
    bool is_snapshot = lend->purpose == FERRY__LEND_PURPOSE__LEND_SNAPSHOT;

    TRY(machine_control_expect_machine(control, "lend memory"));
    if (lend->purpose == FERRY__LEND_PURPOSE__LEND_INCOMING) {
        int fd = guest_memory_fd(machine_memory(control->machine));
        TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING,
                                   "lend memory"));
        reply_memory(control, call->call, &fd, 1, false);
        call->is_answered = true;
        return NULL;
    }
    if (!is_snapshot && lend->purpose != FERRY__LEND_PURPOSE__LEND_MIGRATE)
        return err_new(ERR_INVALID, "lend memory for purpose %d", (int)lend->purpose);
    if (control->run_state != FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING)
        TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED,
                                   "lend memory"));
    if (strlen(lend->parent_snapshot) > SNAPSHOT_ID_MAX)
        return err_new(ERR_INVALID, "lend memory: a snapshot's name has at most %u bytes",
                       SNAPSHOT_ID_MAX);
    const char *parent = is_snapshot ? lend->parent_snapshot : "";
    if (control->lazy != NULL)
        return wait_for_memory(control, call, parent);
    TRY(lend_tracked(control, call->call, call->connection, parent));
    call->is_answered = true;
    return NULL;
}

struct err *machine_call_harvest(struct machine_control *control, struct machine_call *call)
{
    const Ferry__ControlHarvest *harvest = call->request->harvest;
    Ferry__ControlHarvested harvested = FERRY__CONTROL_HARVESTED__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    struct dirty_consumer *consumer = NULL;

    TRY(find_consumer(control, call, "harvest", &consumer));
    TRY(dirty_consumer_harvest(consumer, harvest->first_page, harvest->page_count,
                               &harvested.dirty_pages));
    control->counters.harvests++;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_HARVESTED;
    reply.harvested = &harvested;
    machine_call_reply(call, &reply, NULL, 0);
    return NULL;
}

static void return_memory(struct machine_control *control, unsigned connection)
{
    struct machine_borrower *borrower = find_borrower(control, connection);

    if (connection == 0 || borrower == NULL)
        return;
    dirty_consumer_detach(borrower->consumer);
    *borrower = (struct machine_borrower){0};
}

struct err *machine_call_return_memory(struct machine_control *control, struct machine_call *call)
{
    return_memory(control, call->connection);
    return NULL;
}

struct err *machine_call_save_state(struct machine_control *control, struct machine_call *call)
{
    CLEANUP(cleanup_sections) struct section_list *sections = NULL;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;

    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED, "save state"));
    TRY(section_list_create(&sections));
    TRY(machine_save(control->paused, sections));
    control->counters.state_saves++;
    Ferry__MachineState message = *section_list_message(sections);
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_STATE;
    reply.state = &message;
    machine_call_reply(call, &reply, NULL, 0);
    return NULL;
}

struct err *machine_call_mark_cut(struct machine_control *control, struct machine_call *call)
{
    struct dirty_consumer *consumer = NULL;

    TRY(machine_control_expect_own_pause(control, call, "mark the cut"));
    TRY(find_consumer(control, call, "mark the cut", &consumer));
    return dirty_consumer_mark_cut(consumer);
}

struct err *machine_call_keep_tracking(struct machine_control *control, struct machine_call *call)
{
    struct dirty_consumer *consumer = NULL;

    TRY(find_consumer(control, call, "keep tracking", &consumer));
    return dirty_consumer_keep(consumer, call->request->keep_tracking->snapshot);
}

struct err *machine_call_freeze_disks(struct machine_control *control, struct machine_call *call)
{
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    Ferry__ControlFrozenDisks *disks = NULL;

    TRY(machine_control_expect_own_pause(control, call, "freeze disks"));
    if (control->prepare_holder != call->connection || control->is_preparing)
        return err_new(ERR_STATE, "freeze disks: this connection has not prepared them");
    control->prepare_holder = 0;
    TRY(machine_freeze_disks(control->paused, &disks));
    test_hook("vm-run freeze disks");
    control->counters.disk_freezes++;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_DISKS;
    reply.disks = disks;
    machine_call_reply(call, &reply, NULL, 0);
    ferry__control_frozen_disks__free_unpacked(disks, NULL);
    return NULL;
}

struct err *machine_call_hand_over(struct machine_control *control, struct machine_call *call)
{
    const Ferry__ControlHandOver *hand_over = call->request->hand_over;

    TRY(machine_control_expect_own_pause(control, call, "hand over"));
    if (hand_over->session.len != MACHINE_SESSION_BYTES)
        return err_new(ERR_INVALID, "hand over: a session of %zu bytes", hand_over->session.len);
    char *target = strdup(hand_over->target);
    if (target == NULL)
        return err_new(ERR_NO_MEMORY, "hand over");
    struct err *err = machine_hand_over_disks(control->paused);
    if (err != NULL) {
        free(target);
        return err;
    }
    free(control->handed_to);
    control->handed_to = target;
    memcpy(control->handed_session, hand_over->session.data, MACHINE_SESSION_BYTES);
    control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER;
    test_hook("vm-run hand over");
    return NULL;
}

struct err *machine_call_take_back(struct machine_control *control, struct machine_call *call)
{
    TRY(machine_control_expect(control, FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER,
                               "take back"));
    TRY(machine_take_back_disks(control->paused));
    free(TAKE_PTR(control->handed_to));
    machine_settle_stop(TAKE_PTR(control->settle));
    control->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED;
    control->pause_holder = call->connection;
    return NULL;
}

void machine_lending_closed(struct machine_control *control, unsigned connection)
{
    return_memory(control, connection);
    if (control->prepare_holder != connection || connection == 0)
        return;
    control->prepare_holder = 0;
    /* Else it is done when they are ready. */
    if (!control->is_preparing)
        machine_forget_prepared_disks(control->machine);
}
