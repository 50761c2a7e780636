/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_fake.c - the pretended machine's loop, and its guest's life.
 */
#include "control/machine_fake.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "base/thread.h"
#include "control/control_client.h"
#include "control/machine_fake_internal.h"
#include "proto/message_stream.h"

#define FAKE_TSC_KHZ 1000000u

DEFINE_CLEANUP(fake, struct machine_fake, machine_fake_destroy)

void fake_call_reply(struct fake_call *call, Ferry__ControlReply *reply, const int *fds,
                     size_t fd_count)
{
    call->is_answered = true;
    control_call_reply(call->call, reply, fds, fd_count);
}

static void handle(struct control_handler *handler, struct control_call *control_call,
                   const Ferry__ControlRequest *request, int *fds, size_t fd_count)
{
    struct machine_fake *machine = CONTAINER_OF(handler, struct machine_fake, handler);
    struct fake_call call = {
        .call = control_call,
        .request = request,
        .fds = fds,
        .fd_count = fd_count,
        .connection = control_call_connection(control_call),
    };
    struct err *err = machine_fake_handle(machine, &call);
    if (err != NULL)
        control_call_fail(control_call, err);
    else if (!call.is_answered)
        control_call_done(control_call);
}

static void closed(struct control_handler *handler, unsigned connection)
{
    machine_fake_undo(CONTAINER_OF(handler, struct machine_fake, handler), connection);
}

static const struct control_handler_ops fake_ops = {.handle = handle, .closed = closed};

static void mark_page(void *context, uint64_t page)
{
    struct machine_fake *machine = context;
    tracker_fake_mark(machine->tracker, page);
}

static struct err *copy_description(const Ferry__MachineDescription *from,
                                    Ferry__MachineDescription **out_copy)
{
    uint8_t *data;
    size_t len;
    ProtobufCMessage *copy;
    TRY(message_pack(&from->base, CONTROL_MESSAGE_BYTES_MAX, &data, &len));
    struct reader in = reader_of(data, len);
    struct err *err = message_next(&in, &ferry__machine_description__descriptor, len, &copy);
    free(data);
    if (err == NULL)
        *out_copy = (Ferry__MachineDescription *)copy;
    return err;
}

struct err *machine_fake_create_guest(struct machine_fake *machine,
                                      const Ferry__MachineDescription *description)
{
    const Ferry__MachineConfig *config = description->config;
    if (config->memory_mib == 0 || config->memory_mib > MACHINE_MEMORY_MIB_MAX)
        return err_new(ERR_INVALID, "machine of %llu MiB", (unsigned long long)config->memory_mib);
    if (config->n_disks > MACHINE_DISKS_MAX)
        return err_new(ERR_INVALID, "machine with %zu disks", config->n_disks);
    if (strcmp(config->cpu_model, "host") != 0)
        return err_new(ERR_INCOMPATIBLE, "this host does not offer CPU model '%s'",
                       config->cpu_model);

    uint64_t page_count = config->memory_mib * (MIB / PAGE_BYTES);
    struct err *err = copy_description(description, &machine->description);
    if (err == NULL)
        err = tracker_fake_create(page_count, &machine->tracker);
    if (err == NULL)
        err = guest_fake_create(page_count, mark_page, machine, &machine->guest);
    if (err != NULL)
        machine_fake_destroy_guest(machine);
    return err;
}

void machine_fake_destroy_guest(struct machine_fake *machine)
{
    guest_fake_destroy(TAKE_PTR(machine->guest));
    tracker_fake_destroy(TAKE_PTR(machine->tracker));
    machine_fake_forget_prepared(machine);
    if (machine->description != NULL)
        ferry__machine_description__free_unpacked(TAKE_PTR(machine->description), NULL);
    free(TAKE_PTR(machine->handed_to));
    machine->pause_holder = 0;
    machine->is_pause_kept = false;
    machine->incoming_holder = 0;
    machine->is_state_loaded = false;
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY;
}

void machine_fake_run(struct machine_fake *machine)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (machine->paused_at_ns != 0) {
        machine->last_pause_ns = now_ns - machine->paused_at_ns;
        machine->paused_total_ns += machine->last_pause_ns;
    }
    machine->entered_ns = now_ns;
    if (machine->first_run_ns == 0)
        machine->first_run_ns = now_ns;
    machine->paused_at_ns = 0;
    machine->pause_holder = 0;
    machine->is_pause_kept = false;
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING;
    guest_fake_resume(machine->guest);
}

void machine_fake_stand_still(struct machine_fake *machine)
{
    guest_fake_pause(machine->guest);
    machine->last_exit_ns = clock_monotonic_ns();
    machine->paused_at_ns = machine->last_exit_ns;
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_PAUSED;
}

static void end(void *context)
{
    struct machine_fake *machine = context;
    control_server_destroy(TAKE_PTR(machine->server));
    machine_fake_destroy_guest(machine);
    cleanup_fd(&machine->console_fd);
    machine->console_fd = -1;
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_OFF;
    machine_fake_tell_end(machine);
}

void machine_fake_tell_end(struct machine_fake *machine)
{
    int failed = eventfd_write(machine->end_fd, 1);
    ASSERT(failed == 0);
}

/* Posted, because the connection that asked is still on the stack. The loop goes on for
 * visitors. */
void machine_fake_quit(struct machine_fake *machine)
{
    machine->has_quit = true;
    struct err *err = event_loop_post(machine->loop, end, machine);
    ASSERT(err == NULL);
}

static struct err *start_guest(struct machine_fake *machine,
                               const struct machine_fake_config *config)
{
    Ferry__DiskConfig disk = FERRY__DISK_CONFIG__INIT;
    Ferry__DiskConfig *disks[] = {&disk};
    Ferry__SectionKind section = FERRY__SECTION_KIND__INIT;
    Ferry__SectionKind *sections[] = {&section};
    Ferry__MachineConfig machine_config = FERRY__MACHINE_CONFIG__INIT;
    Ferry__MachineDescription description = FERRY__MACHINE_DESCRIPTION__INIT;
    uint8_t uuid[16] = {0xfe};

    disk.id = (char *)"disk0";
    disk.path = (char *)config->disk_path;
    disk.format = (char *)"raw";
    machine_config.name = (char *)(config->name != NULL ? config->name : "fake");
    machine_config.uuid.data = uuid;
    machine_config.uuid.len = sizeof(uuid);
    machine_config.memory_mib = config->memory_mib;
    machine_config.memory_below_4g_mib = config->memory_below_4g_mib;
    machine_config.vcpus = 1;
    machine_config.cpu_model = (char *)"host";
    machine_config.n_disks = config->disk_path != NULL ? 1 : 0;
    machine_config.disks = disks;
    section.name = (char *)"fake-guest";
    section.version = 1;
    description.config = &machine_config;
    description.tsc_khz = FAKE_TSC_KHZ;
    description.n_sections = 1;
    description.sections = sections;
    TRY(machine_fake_create_guest(machine, &description));

    Ferry__FakeGuestState state = FERRY__FAKE_GUEST_STATE__INIT;
    state.seed = config->seed;
    state.filled_pages = config->filled_pages;
    state.working_set_pages = config->working_set_pages;
    state.pages_per_second = config->pages_per_second;
    TRY(guest_fake_set_state(machine->guest, &state));
    guest_fake_fill(machine->guest);
    machine_fake_run(machine);
    return NULL;
}

static void loop_main(void *context)
{
    struct machine_fake *machine = context;
    err_free(event_loop_run(machine->loop));
}

struct err *machine_fake_start(const struct machine_fake_config *config,
                               struct machine_fake **out_machine)
{
    CLEANUP(cleanup_fake) struct machine_fake *machine = calloc(1, sizeof(*machine));
    if (machine == NULL)
        return err_new(ERR_NO_MEMORY, "pretended machine");
    machine->handler.ops = &fake_ops;
    machine->console_fd = -1;
    machine->end_fd = eventfd(0, EFD_CLOEXEC);
    if (machine->end_fd < 0)
        return err_errno(errno, "create an eventfd");
    machine->run_state = FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY;
    machine->started_ns = clock_monotonic_ns();
    TRY(event_loop_create(&machine->loop));
    TRY(control_server_create(machine->loop, &machine->handler, &machine->server));
    if (config != NULL)
        TRY(start_guest(machine, config));
    if (config != NULL && config->name != NULL) {
        TRY(control_server_listen(machine->server, config->name));
        machine->is_listening = true;
    }
    TRY(thread_create(ROLE_LOOP, 0, loop_main, machine, &machine->thread));
    *out_machine = TAKE_PTR(machine);
    return NULL;
}

void machine_fake_destroy(struct machine_fake *machine)
{
    if (machine == NULL)
        return;
    if (machine->thread != NULL)
        event_loop_stop(machine->loop);
    thread_join(machine->thread);
    control_server_destroy(machine->server);
    machine_fake_destroy_guest(machine);
    event_loop_destroy(machine->loop);
    cleanup_fd(&machine->console_fd);
    cleanup_fd(&machine->end_fd);
    free(machine);
}

/* A question to the machine's thread, and its answer. */
struct visit {
    struct machine_fake *machine;
    void (*run)(struct machine_fake *machine, struct visit *visit);
    int fd;
    const char *text;
    uint64_t number;
    struct err *err;
    struct lock lock;
    struct lock_condition done;
    bool is_done GUARDED_BY(&lock);
};

static void visit_run(void *context)
{
    struct visit *visit = context;
    visit->run(visit->machine, visit);
    lock_acquire(&visit->lock);
    visit->is_done = true;
    lock_condition_signal(&visit->done);
    lock_release(&visit->lock);
}

static void visit_and_wait(struct visit *visit)
{
    lock_init(&visit->lock, LOCK_TEST);
    lock_condition_init(&visit->done);
    struct err *err = event_loop_post(visit->machine->loop, visit_run, visit);
    ASSERT(err == NULL);
    lock_acquire(&visit->lock);
    while (!visit->is_done)
        lock_condition_wait(&visit->done, &visit->lock);
    lock_release(&visit->lock);
    lock_condition_finish(&visit->done);
    lock_finish(&visit->lock);
}

static void visit_adopt(struct machine_fake *machine, struct visit *visit)
{
    if (machine->server == NULL) {
        close(visit->fd);
        visit->err = err_new(ERR_STATE, "the machine has quit");
        return;
    }
    visit->err = control_server_adopt(machine->server, visit->fd);
}

struct err *machine_fake_adopt(struct machine_fake *machine, int fd)
{
    struct visit adopt = {.machine = machine, .run = visit_adopt, .fd = fd};
    visit_and_wait(&adopt);
    return adopt.err;
}

bool machine_fake_wait_end(struct machine_fake *machine, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = machine->end_fd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms) > 0;
}

struct err *machine_fake_connect_fd(struct machine_fake *machine, int *out_fd)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return err_errno(errno, "create a control connection");
    CLEANUP(cleanup_fd) int ours = ends[0];
    TRY(machine_fake_adopt(machine, ends[1]));
    *out_fd = TAKE_FD(ours);
    return NULL;
}

struct err *machine_fake_connect(struct machine_fake *machine, const char *program,
                                 struct control_client **out_client)
{
    int fd;
    TRY(machine_fake_connect_fd(machine, &fd));
    return control_client_attach(fd, program, out_client);
}

static void visit_say(struct machine_fake *machine, struct visit *visit)
{
    if (machine->console_fd >= 0)
        (void)send(machine->console_fd, visit->text, strlen(visit->text),
                   MSG_DONTWAIT | MSG_NOSIGNAL);
}

void machine_fake_say(struct machine_fake *machine, const char *text)
{
    struct visit say = {.machine = machine, .run = visit_say, .text = text};
    visit_and_wait(&say);
}

static void visit_run_state(struct machine_fake *machine, struct visit *visit)
{
    visit->number = machine->run_state;
}

Ferry__ControlRunState machine_fake_run_state(struct machine_fake *machine)
{
    struct visit question = {.machine = machine, .run = visit_run_state};
    visit_and_wait(&question);
    return (Ferry__ControlRunState)question.number;
}

static void visit_steps(struct machine_fake *machine, struct visit *visit)
{
    Ferry__FakeGuestState state = FERRY__FAKE_GUEST_STATE__INIT;
    if (machine->guest != NULL)
        guest_fake_state(machine->guest, &state);
    visit->number = state.step;
}

uint64_t machine_fake_steps(struct machine_fake *machine)
{
    struct visit question = {.machine = machine, .run = visit_steps};
    visit_and_wait(&question);
    return question.number;
}

static void visit_borrowers(struct machine_fake *machine, struct visit *visit)
{
    visit->number = machine->tracker == NULL ? 0 : tracker_fake_borrowers(machine->tracker);
}

uint32_t machine_fake_borrowers(struct machine_fake *machine)
{
    struct visit question = {.machine = machine, .run = visit_borrowers};
    visit_and_wait(&question);
    return (uint32_t)question.number;
}

static void visit_has_quit(struct machine_fake *machine, struct visit *visit)
{
    visit->number = machine->has_quit;
}

bool machine_fake_has_quit(struct machine_fake *machine)
{
    struct visit question = {.machine = machine, .run = visit_has_quit};
    visit_and_wait(&question);
    return question.number != 0;
}

static void visit_check(struct machine_fake *machine, struct visit *visit)
{
    if (machine->guest == NULL) {
        visit->err = err_new(ERR_STATE, "the machine is empty");
        return;
    }
    bool is_running = machine->run_state == FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING;
    guest_fake_pause(machine->guest);
    Ferry__FakeGuestState state;
    guest_fake_state(machine->guest, &state);
    visit->err = guest_fake_check(guest_fake_base(machine->guest),
                                  guest_fake_page_count(machine->guest), &state);
    if (is_running)
        guest_fake_resume(machine->guest);
}

struct err *machine_fake_check(struct machine_fake *machine)
{
    struct visit question = {.machine = machine, .run = visit_check};
    visit_and_wait(&question);
    return question.err;
}
