/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_process.c - see machine_process.h.
 */
#include "control/machine_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "control/control_client.h"
#include "control/runtime_folder.h"

#define CONTROL_FD   3
#define REAP_MS_MAX  5000
#define LOG_TAIL_MAX 400u

static struct err *vm_run_path(char **out_path)
{
    const char *named = getenv("FERRY_VM_RUN");
    char *path;
    if (named != NULL && named[0] != '\0') {
        path = strdup(named);
    } else {
        char self[PATH_BYTES_MAX + 1];
        ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (len < 0)
            return err_errno(errno, "find this program's own path");
        self[len] = '\0';
        char *slash = strrchr(self, '/');
        if (slash != NULL)
            *slash = '\0';
        if (asprintf(&path, "%s/vm-run", self) < 0)
            path = NULL;
    }
    if (path == NULL)
        return err_new(ERR_NO_MEMORY, "path of vm-run");
    *out_path = path;
    return NULL;
}

/* In a session of its own, so that a worker's Ctrl-C does not reach the machine; with all signals
 * unblocked, whatever thread starts it. */
static struct err *spawn(const char *program, int control_fd, const char *log_path, pid_t *out_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log_path,
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, control_fd, CONTROL_FD);

    char *const arguments[] = {"vm-run", "--incoming", "--control-fd", "3", NULL};
    int errnum = posix_spawn(out_pid, program, &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return errnum == 0 ? NULL
                       : err_errno(errnum, "start '%s' (FERRY_VM_RUN names another)", program);
}

/* The end of what the process said, which explains why it did not answer. */
static struct err *explain(struct err *err, const char *log_path)
{
    CLEANUP(cleanup_fd) int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    char tail[LOG_TAIL_MAX + 1];
    off_t start = size > (off_t)LOG_TAIL_MAX ? size - (off_t)LOG_TAIL_MAX : 0;
    ssize_t len = size <= 0 ? 0 : pread(fd, tail, LOG_TAIL_MAX, start);
    if (len <= 0)
        return err_wrap(err, "start a machine (log '%s' is empty)", log_path);
    while (len > 0 && tail[len - 1] == '\n')
        len--;
    tail[len] = '\0';
    const char *line = strrchr(tail, '\n');
    return err_wrap(err, "start a machine (log '%s': %s)", log_path,
                    line == NULL ? tail : line + 1);
}

struct err *machine_process_start(const char *name, const char *program,
                                  struct control_client **out_client, pid_t *out_pid,
                                  char **out_log_path)
{
    TRY(machine_name_check(name));
    CLEANUP(cleanup_free) char *folder = NULL;
    CLEANUP(cleanup_free) char *vm_run = NULL;
    TRY(runtime_folder(&folder));
    TRY(vm_run_path(&vm_run));
    CLEANUP(cleanup_free) char *log_path = NULL;
    if (asprintf(&log_path, "%s/%s.log", folder, name) < 0) {
        log_path = NULL;
        return err_new(ERR_NO_MEMORY, "path of a log");
    }

    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return err_errno(errno, "create a control connection");
    CLEANUP(cleanup_fd) int ours = ends[0];
    CLEANUP(cleanup_fd) int theirs = ends[1];
    pid_t pid;
    TRY(spawn(vm_run, theirs, log_path, &pid));
    close(TAKE_FD(theirs)); /* so that its death is a hang-up */

    struct err *err = control_client_attach(TAKE_FD(ours), program, out_client);
    if (err != NULL) {
        machine_process_reap(pid);
        return explain(err, log_path);
    }
    *out_pid = pid;
    *out_log_path = TAKE_PTR(log_path);
    return NULL;
}

void machine_process_reap(pid_t pid)
{
    CLEANUP(cleanup_fd) int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd poll_fd = {.fd = pid_fd, .events = POLLIN};
    if (pid_fd < 0 || poll(&poll_fd, 1, REAP_MS_MAX) <= 0)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}
