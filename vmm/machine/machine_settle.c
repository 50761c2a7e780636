/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_settle.c - see machine_settle.h.
 *
 * The program talks to us over the control socket: it takes the machine back, or tells us to quit.
 * That it ended means nothing by itself; as long as nobody stops us, it is started again.
 * Tested by: tests/system, which kills movers after the hand-over.
 */
#include "vmm/machine/machine_settle.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/limits.h"
#include "base/log.h"

#define WAIT_FIRST_NS ((uint64_t)NS_PER_S)
#define WAIT_MAX_NS   (60u * (uint64_t)NS_PER_S)
#define PROGRAM       "vm-migrate"

struct machine_settle {
    struct event_loop *loop;
    char name[MACHINE_NAME_MAX + 1];
    struct event_source *timer;
    struct event_source *watch;
    int pid_fd; /* -1: it does not run */
    pid_t pid;
    uint64_t wait_ns;
};

/* Beside our own executable, or by PATH where that can not be told. */
static void find_program(char *out_path, size_t len)
{
    char self[PATH_MAX];
    ssize_t got = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash = NULL;

    if (got > 0) {
        self[got] = '\0';
        slash = strrchr(self, '/');
    }
    if (slash == NULL)
        (void)snprintf(out_path, len, "%s", PROGRAM);
    else
        (void)snprintf(out_path, len, "%.*s/%s", (int)(slash - self), self, PROGRAM);
}

static void retry_later(struct machine_settle *settle)
{
    event_timer_arm(settle->timer, clock_monotonic_ns() + settle->wait_ns);
    settle->wait_ns = MIN(settle->wait_ns * 2, WAIT_MAX_NS);
}

static void reap(struct machine_settle *settle, int flags)
{
    int status;

    event_source_remove(settle->watch);
    settle->watch = NULL;
    cleanup_fd(&settle->pid_fd);
    settle->pid_fd = -1;
    if (settle->pid > 0)
        (void)waitpid(settle->pid, &status, flags);
    settle->pid = 0;
}

static void on_ended(void *context, uint32_t events)
{
    struct machine_settle *settle = context;

    (void)events;
    reap(settle, 0);
    retry_later(settle);
}

static struct err *spawn(struct machine_settle *settle)
{
    char path[PATH_MAX + 16];
    char program[] = PROGRAM;
    char option[] = "--settle";
    char *arguments[] = {program, option, settle->name, NULL};
    posix_spawnattr_t attributes;
    sigset_t none;

    find_program(path, sizeof(path));
    (void)sigemptyset(&none);
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    int error = posix_spawnp(&settle->pid, path, NULL, &attributes, arguments, environ);
    (void)posix_spawnattr_destroy(&attributes);
    if (error != 0) {
        settle->pid = 0;
        return err_errno(error, "start '%s --settle %s'", path, settle->name);
    }
    settle->pid_fd = (int)syscall(SYS_pidfd_open, settle->pid, 0);
    if (settle->pid_fd < 0)
        return err_errno(errno, "watch '%s --settle %s'", path, settle->name);
    return event_loop_watch(settle->loop, settle->pid_fd, EPOLLIN, on_ended, settle,
                            &settle->watch);
}

static void on_timer(void *context)
{
    struct machine_settle *settle = context;
    struct err *err = spawn(settle);

    if (err != NULL) {
        log_err(LOG_WARNING, "not settled yet", err);
        reap(settle, WNOHANG);
        retry_later(settle);
    }
}

struct err *machine_settle_start(struct event_loop *loop, const char *name,
                                 struct machine_settle **out_settle)
{
    struct machine_settle *settle = calloc(1, sizeof(*settle));
    if (settle == NULL)
        return err_new(ERR_NO_MEMORY, "settle the machine");
    settle->loop = loop;
    settle->pid_fd = -1;
    settle->wait_ns = WAIT_FIRST_NS;
    (void)snprintf(settle->name, sizeof(settle->name), "%s", name);

    struct err *err = event_loop_timer(loop, on_timer, settle, &settle->timer);
    if (err != NULL) {
        machine_settle_stop(settle);
        return err;
    }
    event_timer_arm(settle->timer, clock_monotonic_ns());
    *out_settle = settle;
    return NULL;
}

void machine_settle_stop(struct machine_settle *settle)
{
    if (settle == NULL)
        return;
    event_source_remove(settle->timer);
    /* It may be what stops us; it ends by itself. */
    reap(settle, WNOHANG);
    free(settle);
}
