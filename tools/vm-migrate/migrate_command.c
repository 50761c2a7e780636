/* SPDX-License-Identifier: Apache-2.0 */
/*
 * migrate_command.c - see migrate_command.h. Tested by: tests/system.
 */
#include "tools/vm-migrate/migrate_command.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/thread.h"
#include "control/control_client.h"
#include "migration/source.h"
#include "migration/tls_identity.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/vm-migrate/move_lock.h"
#include "tools/vm-migrate/move_watch.h"

#define PROGRAM "vm-migrate"
#define TICK_MS 200

/* A move, and the thread that does it. */
struct move {
    struct source *source;
    struct err *err;
    int done_fd; /* readable once the thread has finished */
};

DEFINE_CLEANUP(control, struct control_client, control_client_close)
DEFINE_CLEANUP(identity, struct tls_identity, tls_identity_destroy)

static void move_main(void *argument)
{
    struct move *move = argument;

    move->err = source_run(move->source);
    (void)eventfd_write(move->done_fd, 1);
}

static int signal_fd(void)
{
    sigset_t ends;

    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &ends, NULL);
    return signalfd(-1, &ends, SFD_CLOEXEC);
}

/* Until the thread has finished; Ctrl-C cancels, which it may be too late for. */
static void watch_move(struct move *move, int signals_fd, struct move_watch *watch)
{
    struct pollfd fds[2] = {{.fd = move->done_fd, .events = POLLIN},
                            {.fd = signals_fd, .events = POLLIN}};

    for (;;) {
        struct signalfd_siginfo info;

        (void)poll(fds, 2, TICK_MS);
        if (fds[0].revents != 0)
            return;
        if (fds[1].revents != 0 && read(signals_fd, &info, sizeof(info)) == sizeof(info))
            source_cancel(move->source);
        move_watch_tick(watch, source_counts(move->source));
    }
}

static struct err *run_move(const struct source_config *config, int signals_fd,
                            struct move_watch *watch)
{
    CLEANUP(cleanup_fd) int done_fd = eventfd(0, EFD_CLOEXEC);
    struct move move = {.done_fd = done_fd};
    struct thread *thread = NULL;

    if (done_fd < 0)
        return err_errno(errno, "move '%s'", config->name);
    TRY(source_create(config, &move.source));
    struct err *err = thread_create(ROLE_SESSION, 1, move_main, &move, &thread);
    if (err == NULL) {
        watch_move(&move, signals_fd, watch);
        thread_join(thread);
        err = move.err;
    }
    if (err == NULL) {
        struct move_report report = source_report(move.source);
        move_watch_report(watch, config->target, &report);
    } else if (watch->is_terminal) {
        (void)printf("\n");
    }
    source_destroy(move.source);
    return err;
}

static struct err *move(const struct migrate_options *options, const char *name, const char *target,
                        int signals_fd)
{
    CLEANUP(cleanup_control) struct control_client *control = NULL;
    CLEANUP(cleanup_identity) struct tls_identity *identity = NULL;
    struct host_address address;
    struct dialer_tls dialer;
    struct move_watch watch;

    TRY(host_address_parse(target, &address));
    TRY(tls_identity_load(options->certs, &identity));
    TRY(control_client_connect(name, PROGRAM, &control));
    dialer_tls_init(&dialer, &address, identity, &timeouts_default);
    move_watch_init(&watch, name, options->json);
    return run_move(
        &(struct source_config){
            .name = name,
            .target = target,
            .control = control,
            .dialer = &dialer.base,
            .observer = &watch.base,
            .channels = (uint32_t)options->channels,
            .bytes_per_second = options->mib_per_second * MIB,
            .limits = {.downtime_ms_max = (uint32_t)options->downtime_ms,
                       .rounds_max = (uint32_t)options->rounds_max},
        },
        signals_fd, &watch);
}

/* Whom to ask about which session; free() *out_target. */
static struct err *find_handover(struct control_client *control, const char *name,
                                 char **out_target, struct session_id *out_session)
{
    Ferry__ControlReply *reply = NULL;

    TRY(control_status(control, &reply));
    struct err *err = NULL;
    if (reply->status->state != FERRY__CONTROL_RUN_STATE__RUN_STATE_HANDED_OVER)
        err = err_new(ERR_STATE,
                      "machine '%s' has not been handed over: there is nothing to settle", name);
    else
        err = session_id_from_message(reply->status->handed_session, out_session);
    if (err == NULL) {
        *out_target = strdup(reply->status->handed_to);
        if (*out_target == NULL)
            err = err_new(ERR_NO_MEMORY, "settle '%s'", name);
    }
    ferry__control_reply__free_unpacked(reply, NULL);
    return err;
}

static struct err *settle(const struct migrate_options *options, const char *name, int signals_fd)
{
    CLEANUP(cleanup_control) struct control_client *control = NULL;
    CLEANUP(cleanup_identity) struct tls_identity *identity = NULL;
    CLEANUP(cleanup_free) char *target = NULL;
    struct handed_machine machine = {.name = name};
    struct host_address address;
    struct dialer_tls dialer;
    struct move_watch watch;
    bool runs_there = false;

    TRY(tls_identity_load(options->certs, &identity));
    TRY(control_client_connect(name, PROGRAM, &control));
    TRY(find_handover(control, name, &target, &machine.session));
    TRY(host_address_parse(target, &address));
    dialer_tls_init(&dialer, &address, identity, &timeouts_default);
    move_watch_init(&watch, name, options->json);
    machine.control = control;
    TRY(source_settle(&machine, &dialer.base, signals_fd, &watch.base, &runs_there));
    if (options->json)
        program_json_event(json_pack("{s:s, s:s, s:b}", "event", "settled", "machine", name,
                                     "runs_there", (int)runs_there));
    else
        (void)printf(runs_there ? "%s runs on %s\n" : "%s runs here: it never ran on %s\n", name,
                     target);
    return NULL;
}

struct err *migrate_command_run(const struct migrate_options *options, const char *name,
                                const char *target)
{
    CLEANUP(cleanup_fd) int signals_fd = -1;

    if (options->cancel)
        return move_lock_cancel(name);
    if ((target == NULL) != options->settle)
        program_check_usage(err_new(ERR_INVALID,
                                    "usage: vm-migrate NAME HOST[:PORT], or vm-migrate --settle "
                                    "NAME, or vm-migrate --cancel NAME"));
    TRY(move_lock_take(name));
    signals_fd = signal_fd();
    if (signals_fd < 0)
        return err_errno(errno, "watch signals");
    return options->settle ? settle(options, name, signals_fd)
                           : move(options, name, target, signals_fd);
}
