/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_fake_calls.c - what the pretended machine answers. Tested by: machine_fake_test.c
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file_io.h"
#include "control/disk_limits.h"
#include "control/machine_fake_internal.h"
#include "control/resume_record.h"
#include "proto/page_index.h"
#include "proto/section.h"

#define GUEST_SECTION "fake-guest"
#define GUEST_VERSION 1u

DEFINE_CLEANUP(section_list, struct section_list, section_list_destroy)
DEFINE_CLEANUP(index, struct page_index, page_index_close)

static const char *const run_state_names[] = {
    "in no state", "empty", "incoming", "running", "paused", "handed over", "failed", "off",
};

static struct err *expect_state(const struct machine_fake *machine, Ferry__ControlRunState wanted,
                                const char *what)
{
    if (machine->run_state == wanted)
        return NULL;
    return err_new(ERR_STATE, "%s: the machine is %s, not %s", what,
                   run_state_names[machine->run_state], run_state_names[wanted]);
}

static struct err *expect_own_pause(const struct machine_fake *machine,
                                    const struct fake_call *call, const char *what)
{
    TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED, what));
    if (machine->pause_holder != call->connection)
        return err_new(ERR_STATE, "%s: the machine is not paused by this connection", what);
    return NULL;
}

static struct err *call_status(struct machine_fake *machine, struct fake_call *call)
{
    Ferry__ControlStatus status = FERRY__CONTROL_STATUS__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    status.state = machine->run_state;
    if (machine->description != NULL)
        status.config = machine->description->config;
    if (machine->handed_to != NULL) {
        status.handed_to = machine->handed_to;
        status.handed_session.data = machine->handed_session;
        status.handed_session.len = sizeof(machine->handed_session);
    }
    status.uptime_ms = (clock_monotonic_ns() - machine->started_ns) / NS_PER_MS;
    status.paused_ms = machine->paused_total_ns / NS_PER_MS;
    status.last_pause_us = machine->last_pause_ns / NS_PER_US;
    status.first_run_ns = machine->first_run_ns;
    status.last_exit_ns = machine->last_exit_ns;
    status.entered_ns = machine->entered_ns;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_STATUS;
    reply.status = &status;
    fake_call_reply(call, &reply, NULL, 0);
    return NULL;
}

static struct err *call_describe(struct machine_fake *machine, struct fake_call *call)
{
    if (machine->description == NULL)
        return err_new(ERR_STATE, "describe: the machine is empty");
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_DESCRIPTION;
    reply.description = machine->description;
    fake_call_reply(call, &reply, NULL, 0);
    return NULL;
}

/* What an incoming machine needs before it can run, or be left to others as it is. */
static struct err *complete_incoming(struct machine_fake *machine)
{
    if (!machine->is_state_loaded)
        return err_new(ERR_STATE, "the machine's state has not been loaded");
    if (!machine->is_listening && machine->description->config->name[0] != '\0') {
        TRY(control_server_listen(machine->server, machine->description->config->name));
        machine->is_listening = true;
    }
    machine->incoming_holder = 0;
    return NULL;
}

static struct err *call_pause(struct machine_fake *machine, struct fake_call *call)
{
    bool is_held = call->request->pause->hold;
    bool is_incoming = machine->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING;
    machine->is_pause_kept = is_held && call->request->pause->or_paused &&
                             machine->pause_holder == 0 &&
                             machine->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED;
    if (is_incoming && !is_held)
        TRY(complete_incoming(machine));
    else if (!machine->is_pause_kept)
        TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING, "pause"));
    if (!machine->is_pause_kept)
        machine_fake_stand_still(machine);
    machine->pause_holder = is_held ? call->connection : 0;

    Ferry__ControlPaused paused = FERRY__CONTROL_PAUSED__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    paused.paused_ns = machine->last_exit_ns;
    paused.realtime_ns = clock_realtime_ns();
    paused.was_paused = machine->is_pause_kept;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_PAUSED;
    reply.paused = &paused;
    fake_call_reply(call, &reply, NULL, 0);
    return NULL;
}

static bool let_go(struct machine_fake *machine, unsigned connection)
{
    if (!machine->is_pause_kept || machine->pause_holder != connection)
        return false;
    machine->is_pause_kept = false;
    machine->pause_holder = 0;
    return true;
}

static struct err *call_resume(struct machine_fake *machine, struct fake_call *call)
{
    if (let_go(machine, call->connection))
        return NULL;
    if (machine->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING)
        TRY(complete_incoming(machine));
    else
        TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED, "resume"));
    TRY(resume_record_write(call->request->resume, call->fds, call->fd_count));
    machine_fake_run(machine);
    return NULL;
}

static struct err *call_ignored(struct machine_fake *machine, struct fake_call *call)
{
    (void)call;
    return expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING, "button or reset");
}

static struct err *call_quit(struct machine_fake *machine, struct fake_call *call)
{
    control_call_done(call->call);
    call->is_answered = true;
    machine_fake_quit(machine);
    return NULL;
}

static struct err *call_console(struct machine_fake *machine, struct fake_call *call)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return err_errno(errno, "create a console");
    cleanup_fd(&machine->console_fd);
    machine->console_fd = ends[0];

    Ferry__ControlNothing nothing = FERRY__CONTROL_NOTHING__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_DONE;
    reply.done = &nothing;
    fake_call_reply(call, &reply, &ends[1], 1);
    close(ends[1]);
    return NULL;
}

static size_t fill_regions(const struct machine_fake *machine, Ferry__MemoryRegion regions[2])
{
    const Ferry__MachineConfig *config = machine->description->config;
    uint64_t bytes = config->memory_mib * MIB;
    uint64_t low_bytes = config->memory_below_4g_mib * MIB;
    if (low_bytes == 0 || low_bytes > bytes)
        low_bytes = bytes;
    ferry__memory_region__init(&regions[0]);
    ferry__memory_region__init(&regions[1]);
    regions[0].bytes = low_bytes;
    regions[1].guest_address = 4 * GIB;
    regions[1].bytes = bytes - low_bytes;
    regions[1].file_offset = low_bytes;
    return regions[1].bytes == 0 ? 1 : 2;
}

static struct err *call_lend_memory(struct machine_fake *machine, struct fake_call *call)
{
    const Ferry__ControlLendMemory *lend = call->request->lend_memory;
    bool is_incoming = lend->purpose == FERRY__LEND_PURPOSE__LEND_INCOMING;
    bool is_snapshot = lend->purpose == FERRY__LEND_PURPOSE__LEND_SNAPSHOT;
    int fds[2] = {-1, -1};
    bool is_incremental = false;

    if (machine->guest == NULL)
        return err_new(ERR_STATE, "lend memory: the machine is empty");
    if (!is_incoming && !is_snapshot && lend->purpose != FERRY__LEND_PURPOSE__LEND_MIGRATE)
        return err_new(ERR_INVALID, "lend memory for purpose %d", (int)lend->purpose);
    fds[0] = guest_fake_memory_fd(machine->guest);
    if (is_incoming)
        TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING, "lend memory"));
    else
        TRY(tracker_fake_lend(machine->tracker, call->connection,
                              is_snapshot ? lend->parent_snapshot : NULL, &fds[1],
                              &is_incremental));

    Ferry__MemoryRegion regions[2];
    Ferry__MemoryRegion *region_list[2] = {&regions[0], &regions[1]};
    Ferry__ControlMemory memory = FERRY__CONTROL_MEMORY__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    memory.n_regions = fill_regions(machine, regions);
    memory.regions = region_list;
    memory.is_incremental = is_incremental;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_MEMORY;
    reply.memory = &memory;
    fake_call_reply(call, &reply, fds, is_incoming ? 1 : 2);
    return NULL;
}

static struct err *expect_tracked(const struct machine_fake *machine)
{
    return machine->tracker != NULL ? NULL : err_new(ERR_STATE, "the machine is empty");
}

static struct err *call_harvest(struct machine_fake *machine, struct fake_call *call)
{
    const Ferry__ControlHarvest *harvest = call->request->harvest;
    Ferry__ControlHarvested harvested = FERRY__CONTROL_HARVESTED__INIT;
    TRY(expect_tracked(machine));
    TRY(tracker_fake_harvest(machine->tracker, call->connection, harvest->first_page,
                             harvest->page_count, &harvested.dirty_pages));

    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_HARVESTED;
    reply.harvested = &harvested;
    fake_call_reply(call, &reply, NULL, 0);
    return NULL;
}

static struct err *call_return_memory(struct machine_fake *machine, struct fake_call *call)
{
    TRY(expect_tracked(machine));
    tracker_fake_return(machine->tracker, call->connection);
    return NULL;
}

static struct err *call_save_state(struct machine_fake *machine, struct fake_call *call)
{
    TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED, "save state"));
    CLEANUP(cleanup_section_list) struct section_list *list = NULL;
    Ferry__FakeGuestState state;
    guest_fake_state(machine->guest, &state);
    TRY(section_list_create(&list));
    TRY(section_list_add(list, GUEST_SECTION, 0, GUEST_VERSION, &state.base));

    Ferry__MachineState message = *section_list_message(list);
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_STATE;
    reply.state = &message;
    fake_call_reply(call, &reply, NULL, 0);
    return NULL;
}

static struct err *call_mark_cut(struct machine_fake *machine, struct fake_call *call)
{
    TRY(expect_own_pause(machine, call, "mark the cut"));
    return tracker_fake_mark_cut(machine->tracker, call->connection);
}

static struct err *call_keep_tracking(struct machine_fake *machine, struct fake_call *call)
{
    TRY(expect_tracked(machine));
    return tracker_fake_keep(machine->tracker, call->connection,
                             call->request->keep_tracking->snapshot);
}

/* An overlay is an empty file here: nobody reads through it. */
static struct err *call_prepare_disks(struct machine_fake *machine, struct fake_call *call)
{
    if (machine->description == NULL)
        return err_new(ERR_STATE, "prepare disks: the machine is empty");
    machine_fake_forget_prepared(machine);
    machine->prepare_holder = call->connection;
    const Ferry__MachineConfig *config = machine->description->config;
    machine->overlay_count++;
    for (size_t i = 0; i < config->n_disks; i++) {
        if (config->disks[i]->read_only)
            continue;
        if (asprintf(&machine->prepared[i], "%s.%u", config->disks[i]->path,
                     machine->overlay_count) < 0)
            return err_new(ERR_NO_MEMORY, "path of an overlay");
        TRY(file_replace(machine->prepared[i], "", 0, 0600));
    }
    return NULL;
}

/* A qcow2 image has its virtual size at byte 24, big-endian. */
static struct err *look_at_disk(const Ferry__DiskConfig *disk, uint64_t *out_virtual_bytes)
{
    CLEANUP(cleanup_fd) int fd = open(disk->path, O_RDONLY | O_CLOEXEC);
    uint8_t head[32];

    if (fd < 0)
        return err_errno(errno, "open '%s'", disk->path);
    TRY(file_size(fd, disk->path, out_virtual_bytes));
    if (strcmp(disk->format, "qcow2") != 0 || *out_virtual_bytes < sizeof(head))
        return NULL;
    TRY(file_read_at(fd, disk->path, head, sizeof(head), 0));
    struct reader in = reader_of(head + 24, 8);
    *out_virtual_bytes = reader_be64(&in);
    return NULL;
}

static struct err *freeze_disk(struct machine_fake *machine, size_t i,
                               Ferry__ControlFrozenDisk *frozen)
{
    Ferry__DiskConfig *disk = machine->description->config->disks[i];
    ferry__control_frozen_disk__init(frozen);
    frozen->id = disk->id;
    frozen->frozen_format = disk->format;
    frozen->read_only = disk->read_only;
    TRY(look_at_disk(disk, &frozen->virtual_bytes));
    frozen->frozen_path = strdup(disk->path);
    if (frozen->frozen_path == NULL)
        return err_new(ERR_NO_MEMORY, "path of a disk");
    if (!disk->read_only) {
        if (chmod(disk->path, 0444) != 0)
            return err_errno(errno, "seal disk '%s'", disk->path);
        free(disk->path);
        disk->path = TAKE_PTR(machine->prepared[i]);
    }
    frozen->active_path = disk->path;
    return NULL;
}

static struct err *call_freeze_disks(struct machine_fake *machine, struct fake_call *call)
{
    TRY(expect_own_pause(machine, call, "freeze disks"));
    size_t count = machine->description->config->n_disks;
    if (count > 0 && machine->prepare_holder != call->connection)
        return err_new(ERR_STATE, "freeze disks: no overlays were prepared");
    machine->prepare_holder = 0;

    Ferry__ControlFrozenDisk frozen[MACHINE_DISKS_MAX];
    Ferry__ControlFrozenDisk *frozen_list[MACHINE_DISKS_MAX];
    struct err *err = NULL;
    size_t done = 0;
    for (; done < count && err == NULL; done++) {
        err = freeze_disk(machine, done, &frozen[done]);
        frozen_list[done] = &frozen[done];
    }
    if (err == NULL) {
        Ferry__ControlFrozenDisks disks = FERRY__CONTROL_FROZEN_DISKS__INIT;
        Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
        disks.n_disks = count;
        disks.disks = frozen_list;
        reply.result_case = FERRY__CONTROL_REPLY__RESULT_DISKS;
        reply.disks = &disks;
        fake_call_reply(call, &reply, NULL, 0);
    }
    for (size_t i = 0; i < done; i++)
        free(frozen[i].frozen_path);
    return err;
}

static struct err *call_hand_over(struct machine_fake *machine, struct fake_call *call)
{
    const Ferry__ControlHandOver *hand_over = call->request->hand_over;
    TRY(expect_own_pause(machine, call, "hand over"));
    if (hand_over->session.len != sizeof(machine->handed_session))
        return err_new(ERR_INVALID, "hand over: a session of %zu bytes", hand_over->session.len);
    char *target = strdup(hand_over->target);
    if (target == NULL)
        return err_new(ERR_NO_MEMORY, "hand over");
    free(machine->handed_to);
    machine->handed_to = target;
    memcpy(machine->handed_session, hand_over->session.data, hand_over->session.len);
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER;
    return NULL;
}

static struct err *call_take_back(struct machine_fake *machine, struct fake_call *call)
{
    TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER, "take back"));
    free(TAKE_PTR(machine->handed_to));
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED;
    machine->pause_holder = call->connection;
    return NULL;
}

static struct err *call_configure(struct machine_fake *machine, struct fake_call *call)
{
    const Ferry__ControlConfigure *configure = call->request->configure;
    TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY, "configure"));
    if (configure->description == NULL || configure->description->config == NULL)
        return err_new(ERR_INVALID, "configure: nothing is described");
    TRY(machine_fake_create_guest(machine, configure->description));
    if (configure->take_identity) {
        struct err *err =
            control_server_listen(machine->server, configure->description->config->name);
        if (err != NULL) {
            machine_fake_destroy_guest(machine);
            return err;
        }
        machine->is_listening = true;
    }
    machine->incoming_holder = call->connection;
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING;
    return NULL;
}

/* All is known and valid before anything is applied. */
static struct err *call_load_state(struct machine_fake *machine, struct fake_call *call)
{
    TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING, "load state"));
    if (call->request->load_state->state == NULL)
        return err_new(ERR_INVALID, "load state: there is none");
    CLEANUP(cleanup_section_list) struct section_list *list = NULL;
    TRY(section_list_from_message(call->request->load_state->state, &list));
    const Ferry__MachineState *state = section_list_message(list);
    for (size_t i = 0; i < state->n_sections; i++)
        if (strcmp(state->sections[i]->name, GUEST_SECTION) != 0 ||
            state->sections[i]->version != GUEST_VERSION)
            return err_new(ERR_INCOMPATIBLE, "load state: section '%s' version %u is unknown",
                           state->sections[i]->name, state->sections[i]->version);
    const Ferry__Section *section = section_list_find(list, GUEST_SECTION, 0);
    if (section == NULL)
        return err_new(ERR_INCOMPATIBLE, "load state: section '" GUEST_SECTION "' is missing");

    ProtobufCMessage *message;
    TRY(section_unpack(section, &ferry__fake_guest_state__descriptor, &message));
    struct err *err = guest_fake_set_state(machine->guest, (const Ferry__FakeGuestState *)message);
    protobuf_c_message_free_unpacked(message, NULL);
    machine->is_state_loaded = err == NULL;
    return err;
}

static struct err *load_page(struct machine_fake *machine, struct page_index *index, uint64_t page,
                             const int *files)
{
    struct page_location location;
    TRY(page_index_find(index, page, &location));
    if (location.is_zero)
        return NULL;
    uint8_t *at = guest_fake_base(machine->guest) + page * PAGE_BYTES;
    TRY(file_read_at(files[location.file], "pages of a snapshot", at, PAGE_BYTES,
                     location.file_page * PAGE_BYTES));
    if (XXH3_64bits(at, PAGE_BYTES) != location.checksum)
        return err_new(ERR_INVALID, "page %" PRIu64 " of the snapshot is damaged", page);
    return NULL;
}

/* Loads everything before it answers; a real machine does it while it runs. */
static struct err *call_memory_source(struct machine_fake *machine, struct fake_call *call)
{
    const Ferry__ControlMemorySource *source = call->request->memory_source;
    TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_INCOMING, "load memory"));
    if (call->fd_count != (size_t)source->file_count + 1)
        return err_new(ERR_INVALID, "load memory: %zu descriptors for an index and %u files",
                       call->fd_count, source->file_count);
    CLEANUP(cleanup_index) struct page_index *index = NULL;
    TRY(page_index_open(call->fds[0], "index of the snapshot", source->index_checksum, &index));
    if (page_index_file_count(index) != source->file_count ||
        page_index_page_count(index) != guest_fake_page_count(machine->guest))
        return err_new(ERR_INVALID, "load memory: the index is of another machine");
    for (uint64_t page = 0; page < page_index_page_count(index); page++)
        TRY(load_page(machine, index, page, call->fds + 1));
    return NULL;
}

static struct err *call_check_disks(struct machine_fake *machine, struct fake_call *call)
{
    (void)call;
    if (machine->description == NULL)
        return err_new(ERR_STATE, "check disks: the machine is empty");
    const Ferry__MachineConfig *config = machine->description->config;
    for (size_t i = 0; i < config->n_disks; i++)
        if (access(config->disks[i]->path, R_OK) != 0)
            return err_new(ERR_NOT_FOUND, "disk '%s': image '%s' is missing", config->disks[i]->id,
                           config->disks[i]->path);
    return NULL;
}

void machine_fake_forget_prepared(struct machine_fake *machine)
{
    for (size_t i = 0; i < MACHINE_DISKS_MAX; i++) {
        if (machine->prepared[i] != NULL)
            (void)unlink(machine->prepared[i]);
        free(TAKE_PTR(machine->prepared[i]));
    }
    machine->prepare_holder = 0;
}

void machine_fake_undo(struct machine_fake *machine, unsigned connection)
{
    if (machine->tracker != NULL)
        tracker_fake_return(machine->tracker, connection);
    if (machine->prepare_holder == connection)
        machine_fake_forget_prepared(machine);
    if (machine->incoming_holder == connection)
        machine_fake_destroy_guest(machine);
    if (machine->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY)
        machine_fake_tell_end(machine);
    if (machine->pause_holder != connection || let_go(machine, connection))
        return;
    machine->pause_holder = 0;
    if (machine->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED)
        machine_fake_run(machine);
}

static struct err *call_limit_disk(struct machine_fake *machine, struct fake_call *call)
{
    size_t disk;

    TRY(expect_state(machine, FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING, "limit disk"));
    return disk_limits_apply(call->request->limit_disk, machine->description->config, &disk);
}

static const struct call_row {
    Ferry__ControlRequest__CallCase call;
    struct err *(*run)(struct machine_fake *machine, struct fake_call *call);
} call_rows[] = {
    {FERRY__CONTROL_REQUEST__CALL_STATUS, call_status},
    {FERRY__CONTROL_REQUEST__CALL_DESCRIBE, call_describe},
    {FERRY__CONTROL_REQUEST__CALL_PAUSE, call_pause},
    {FERRY__CONTROL_REQUEST__CALL_RESUME, call_resume},
    {FERRY__CONTROL_REQUEST__CALL_POWER_BUTTON, call_ignored},
    {FERRY__CONTROL_REQUEST__CALL_RESET, call_ignored},
    {FERRY__CONTROL_REQUEST__CALL_QUIT, call_quit},
    {FERRY__CONTROL_REQUEST__CALL_CONSOLE, call_console},
    {FERRY__CONTROL_REQUEST__CALL_LEND_MEMORY, call_lend_memory},
    {FERRY__CONTROL_REQUEST__CALL_HARVEST, call_harvest},
    {FERRY__CONTROL_REQUEST__CALL_RETURN_MEMORY, call_return_memory},
    {FERRY__CONTROL_REQUEST__CALL_SAVE_STATE, call_save_state},
    {FERRY__CONTROL_REQUEST__CALL_MARK_CUT, call_mark_cut},
    {FERRY__CONTROL_REQUEST__CALL_KEEP_TRACKING, call_keep_tracking},
    {FERRY__CONTROL_REQUEST__CALL_PREPARE_DISKS, call_prepare_disks},
    {FERRY__CONTROL_REQUEST__CALL_FREEZE_DISKS, call_freeze_disks},
    {FERRY__CONTROL_REQUEST__CALL_HAND_OVER, call_hand_over},
    {FERRY__CONTROL_REQUEST__CALL_TAKE_BACK, call_take_back},
    {FERRY__CONTROL_REQUEST__CALL_LIMIT_DISK, call_limit_disk},
    {FERRY__CONTROL_REQUEST__CALL_CONFIGURE, call_configure},
    {FERRY__CONTROL_REQUEST__CALL_LOAD_STATE, call_load_state},
    {FERRY__CONTROL_REQUEST__CALL_MEMORY_SOURCE, call_memory_source},
    {FERRY__CONTROL_REQUEST__CALL_CHECK_DISKS, call_check_disks},
};

struct err *machine_fake_handle(struct machine_fake *machine, struct fake_call *call)
{
    for (size_t i = 0; i < ARRAY_COUNT(call_rows); i++)
        if (call_rows[i].call == call->request->call_case)
            return call_rows[i].run(machine, call);
    return err_new(ERR_INVALID, "call %d is unknown to this machine",
                   (int)call->request->call_case);
}
