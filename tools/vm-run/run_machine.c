/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_machine.c - see run_machine.h. Tested by: tests/system.
 */
#include "tools/vm-run/run_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "tools/program.h"
#include "tools/vm-run/run_options.h"
#include "tools/vm-run/run_terminal.h"
#include "vmm/kvm/kvm_speed.h"
#include "vmm/machine/machine_control.h"

/* How long a guest may take to switch itself off after SIGTERM. */
#define POWER_OFF_NS (60u * (uint64_t)NS_PER_S)

struct run {
    struct event_loop *loop;
    struct machine_control *control;
    int signal_fd;
    struct event_source *signals;
    struct event_source *deadline;
    bool is_asked; /* the power button was pressed once */
    int ready_fd;  /* -1: nobody waits for us to be ready */
};

static void end(struct run *run, const char *reason)
{
    log_info("ends", "because='%s'", reason);
    event_loop_stop(run->loop);
}

static void on_end(void *context, const char *reason)
{
    end(context, reason);
}

static void on_deadline(void *context)
{
    end(context, "the guest did not switch itself off in time");
}

/* SIGTERM asks a guest that listens; asked again, or by SIGINT or SIGHUP, it is not. */
static void on_signal(void *context, uint32_t events)
{
    struct run *run = context;
    struct signalfd_siginfo info;

    (void)events;
    if (read(run->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo != SIGTERM || run->is_asked || !machine_control_power_button(run->control)) {
        end(run, strsignal((int)info.ssi_signo));
        return;
    }
    run->is_asked = true;
    event_timer_arm(run->deadline, clock_monotonic_ns() + POWER_OFF_NS);
}

static struct err *watch_signals(struct run *run)
{
    sigset_t wanted;

    (void)sigemptyset(&wanted);
    (void)sigaddset(&wanted, SIGTERM);
    (void)sigaddset(&wanted, SIGINT);
    (void)sigaddset(&wanted, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &wanted, NULL);
    run->signal_fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signal_fd < 0)
        return err_errno(errno, "watch signals");
    TRY(event_loop_timer(run->loop, on_deadline, run, &run->deadline));
    return event_loop_watch(run->loop, run->signal_fd, EPOLLIN, on_signal, run, &run->signals);
}

static void warn_if_interpreted(void)
{
    bool is_interpreted = false;
    struct err *err = kvm_speed_measure(&is_interpreted);

    if (err == NULL && is_interpreted)
        (void)fprintf(stderr, "vm-run: this host's KVM interprets guest kernels, about a thousand "
                              "times slower than a CPU runs them: stock kernels take hours to "
                              "boot here. Use a host with hardware virtualization.\n");
    err_free(err);
}

static struct err *boot(struct run *run, const struct run_options *options)
{
    struct run_description machine;

    program_check_usage(run_description_init(options, &machine));
    struct err *err = machine_control_boot(run->control, machine.description, machine.tap_fds,
                                           machine.tap_fd_count);
    run_description_finish(&machine);
    TRY(err);
    log_info("machine runs", "name=%s vcpus=%u memory_mib=%u", options->name,
             (unsigned)options->vcpus, (unsigned)options->memory_mib);
    warn_if_interpreted();
    if (strcmp(options->console, "stdio") == 0)
        run_terminal_make_raw();
    return NULL;
}

/* The parent waits until the machine runs, or passes on what went wrong by its exit status. */
static struct err *go_to_background(struct run *run)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_errno(errno, "go to the background");
    pid_t pid = fork();
    if (pid < 0)
        return err_errno(errno, "go to the background");
    if (pid == 0) {
        close(fds[0]);
        (void)setsid();
        run->ready_fd = fds[1];
        return NULL;
    }
    close(fds[1]);
    char word = 0;
    if (read(fds[0], &word, 1) == 1)
        _exit(EXIT_SUCCESS);
    int status = 0;
    bool has_ended = waitpid(pid, &status, 0) == pid && WIFEXITED(status);
    _exit(has_ended ? WEXITSTATUS(status) : EXIT_FAILURE);
}

/* From here on nobody reads what we print, unless it goes to a file. */
static void say_ready(struct run *run)
{
    if (run->ready_fd < 0)
        return;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; null_fd >= 0 && fd <= STDERR_FILENO; fd++) {
        if (fd == STDIN_FILENO || isatty(fd) == 1)
            (void)dup2(null_fd, fd);
    }
    cleanup_fd(&null_fd);
    (void)!write(run->ready_fd, "r", 1);
    close(run->ready_fd);
    run->ready_fd = -1;
}

static struct err *start(struct run *run, const struct run_options *options)
{
    struct machine_control_config config = {.on_end = on_end, .context = run};

    if (options->daemonize)
        TRY(go_to_background(run));
    TRY(event_loop_create(&run->loop));
    TRY(watch_signals(run));
    config.loop = run->loop;
    TRY(machine_control_create(&config, &run->control));
    if (options->control_fd != 0)
        TRY(machine_control_adopt(run->control, (int)options->control_fd));
    if (!options->is_incoming)
        TRY(boot(run, options));
    say_ready(run);
    return event_loop_run(run->loop);
}

struct err *run_machine(const struct run_options *options)
{
    struct run run = {.signal_fd = -1, .ready_fd = -1};

    if (options->is_incoming && options->control_fd == 0)
        program_check_usage(err_new(ERR_INVALID, "--incoming needs --control-fd"));
    struct err *err = start(&run, options);
    machine_control_destroy(run.control);
    event_source_remove(run.signals);
    event_source_remove(run.deadline);
    event_loop_destroy(run.loop);
    cleanup_fd(&run.signal_fd);
    return err;
}
