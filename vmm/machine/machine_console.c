/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_console.c - see machine_console.h.
 *
 * The guest's bytes go into a ring of each end, filled by vCPU threads under the device lock and
 * emptied by the loop. An end is asked whether it takes bytes before each write instead of being
 * made non-blocking, because a terminal's flags are shared with the shell that started us.
 * Tested by: tests/system, whose guests all speak through it.
 */
#include "vmm/machine/machine_console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/lock.h"
#include "vmm/machine/loop_wake.h"

#define ENDS_MAX    8u
#define RING_BYTES  65536u
#define WRITE_BYTES 4096u /* what a pipe takes at once when it says that it takes anything */
#define INPUT_BYTES 256u
#define RETRY_NS    (10u * (uint64_t)NS_PER_MS)
#define ESCAPE      0x1du /* Ctrl-] on a terminal asks the machine to end */

struct console_end {
    struct console *console;
    bool is_used;
    bool is_main; /* lives as long as the console; the others until they hang up */
    bool is_terminal;
    int in_fd; /* -1: no input (any more) */
    int out_fd;
    bool owns_fds;
    struct event_source *input;
    uint8_t *ring; /* owned; guarded by the device lock, as are start and count */
    size_t start;
    size_t count;
};

struct console {
    struct event_loop *loop;
    struct lock *device_lock;
    struct device *serial;
    struct console_end ends[ENDS_MAX];
    struct event_source *retry;
    struct loop_wake *wake;     /* owned */
    bool is_output_waiting;     /* guarded by the device lock */
    bool is_room_announced;     /* likewise */
    uint8_t input[INPUT_BYTES]; /* waits for room in the port */
    size_t input_count;
    int listen_fd;
    struct event_source *listener;
    char *path; /* owned */
    bool is_socket;
};

static void ring_put(struct console_end *end, uint8_t byte)
{
    if (end->count == RING_BYTES) {
        end->start = (end->start + 1) % RING_BYTES;
        end->count--;
    }
    end->ring[(end->start + end->count++) % RING_BYTES] = byte;
}

static void end_close(struct console_end *end)
{
    event_source_remove(end->input);
    if (end->owns_fds) {
        cleanup_fd(&end->in_fd);
        if (end->out_fd != end->in_fd)
            cleanup_fd(&end->out_fd);
    }
    lock_acquire(end->console->device_lock);
    end->is_used = false;
    free(end->ring);
    end->ring = NULL;
    lock_release(end->console->device_lock);
}

/* Copies the oldest bytes, which stay; returns how many, 0: there is nothing. */
static size_t ring_peek(struct console_end *end, uint8_t *out_piece, size_t len_max)
{
    lock_acquire(end->console->device_lock);
    size_t len = MIN(end->count, RING_BYTES - end->start);
    len = MIN(len, len_max);
    memcpy(out_piece, end->ring + end->start, len);
    lock_release(end->console->device_lock);
    return len;
}

/* Writes one piece; false: nothing is left, or the end takes nothing for the moment, which is
 * *out_left. */
static bool end_write_some(struct console_end *end, bool *out_left)
{
    uint8_t piece[WRITE_BYTES];
    struct pollfd ready = {.fd = end->out_fd, .events = POLLOUT};
    size_t len = ring_peek(end, piece, sizeof(piece));

    *out_left = len > 0;
    if (len == 0 || poll(&ready, 1, 0) <= 0 || (ready.revents & POLLOUT) == 0)
        return false;
    ssize_t written = write(end->out_fd, piece, len);
    lock_acquire(end->console->device_lock);
    /* An end that fails loses its output; a client that is gone is noticed by its input. */
    size_t gone = written < 0 ? end->count : MIN((size_t)written, end->count);
    end->start = (end->start + gone) % RING_BYTES;
    end->count -= gone;
    lock_release(end->console->device_lock);
    return true;
}

static void flush_ends(struct console *console)
{
    bool is_any_left = false;

    for (size_t i = 0; i < ENDS_MAX; i++) {
        struct console_end *end = &console->ends[i];
        bool is_left = false;
        while (end->is_used && end_write_some(end, &is_left))
            continue;
        is_any_left = is_any_left || is_left;
    }
    if (is_any_left)
        event_timer_arm(console->retry, clock_monotonic_ns() + RETRY_NS);
}

static void on_retry(void *context)
{
    flush_ends(context);
}

static void on_output(void *context, uint8_t byte)
{
    struct console *console = context;

    for (size_t i = 0; i < ENDS_MAX; i++) {
        if (console->ends[i].is_used)
            ring_put(&console->ends[i], byte);
    }
    if (!console->is_output_waiting)
        loop_wake(console->wake);
    console->is_output_waiting = true;
}

static void watch_inputs(struct console *console, uint32_t events)
{
    for (size_t i = 0; i < ENDS_MAX; i++) {
        if (console->ends[i].is_used && console->ends[i].input != NULL)
            event_source_set_events(console->ends[i].input, events);
    }
}

/* Gives the port what it takes; while bytes wait, no more are read. */
static void feed_port(struct console *console)
{
    lock_acquire(console->device_lock);
    size_t taken = 0;
    if (console->serial != NULL)
        taken = serial_16550_input(console->serial, console->input, console->input_count);
    lock_release(console->device_lock);
    console->input_count -= taken;
    memmove(console->input, console->input + taken, console->input_count);
    watch_inputs(console, console->input_count == 0 ? EPOLLIN : 0);
}

static void on_input_room(void *context)
{
    struct console *console = context;

    console->is_room_announced = true;
    loop_wake(console->wake);
}

static void on_wake(void *context)
{
    struct console *console = context;

    lock_acquire(console->device_lock);
    bool has_room = console->is_room_announced;
    console->is_room_announced = false;
    console->is_output_waiting = false;
    lock_release(console->device_lock);
    flush_ends(console);
    if (has_room && console->input_count > 0)
        feed_port(console);
}

static void on_input(void *context, uint32_t events)
{
    struct console_end *end = context;
    struct console *console = end->console;

    (void)events;
    if (console->input_count > 0) {
        if (!end->is_main && (events & (EPOLLHUP | EPOLLERR)) != 0)
            end_close(end);
        return;
    }
    ssize_t got = read(end->in_fd, console->input, sizeof(console->input));
    if (got <= 0) {
        /* A pty without a reader fails with EIO until somebody opens it; the end of stdin is the
         * end of input. */
        if (end->is_main) {
            event_source_remove(end->input);
            end->input = NULL;
        } else {
            end_close(end);
        }
        return;
    }
    if (end->is_terminal && memchr(console->input, ESCAPE, (size_t)got) != NULL) {
        (void)kill(getpid(), SIGTERM);
        return;
    }
    console->input_count = (size_t)got;
    feed_port(console);
}

static struct err *add_end(struct console *console, int in_fd, int out_fd, bool is_main,
                           bool owns_fds)
{
    size_t free_end = 0;
    while (free_end < ENDS_MAX && console->ends[free_end].is_used)
        free_end++;
    if (free_end == ENDS_MAX)
        return err_new(ERR_STATE, "console: %u connections are open already", ENDS_MAX);

    uint8_t *ring = malloc(RING_BYTES);
    if (ring == NULL)
        return err_new(ERR_NO_MEMORY, "console");
    struct console_end *end = &console->ends[free_end];
    lock_acquire(console->device_lock);
    *end = (struct console_end){
        .console = console,
        .is_used = true,
        .is_main = is_main,
        .is_terminal = in_fd == STDIN_FILENO && isatty(in_fd) == 1,
        .in_fd = in_fd,
        .out_fd = out_fd,
        .owns_fds = owns_fds,
        .ring = ring,
    };
    lock_release(console->device_lock);
    if (in_fd >= 0) {
        /* What can not be watched, a plain file or /dev/null, has no input for a guest. */
        struct err *err =
            event_loop_watch(console->loop, in_fd, EPOLLIN, on_input, end, &end->input);
        err_free(err);
    }
    return NULL;
}

static struct err *open_pty(struct console *console)
{
    CLEANUP(cleanup_fd) int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    char name[64];

    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof(name)) != 0)
        return err_errno(errno, "console: open a pty");
    console->path = strdup(name);
    if (console->path == NULL)
        return err_new(ERR_NO_MEMORY, "console");
    /* Held open by ourselves too, so that it lives through the comings and goings of others. */
    CLEANUP(cleanup_fd) int held = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (held < 0)
        return err_errno(errno, "console: open '%s'", name);
    TRY(add_end(console, fd, fd, true, true));
    (void)TAKE_FD(fd);
    console->listen_fd = TAKE_FD(held);
    return NULL;
}

static struct err *open_file(struct console *console, const char *path)
{
    CLEANUP(cleanup_fd)
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return err_errno(errno, "console: open '%s'", path);
    TRY(add_end(console, -1, fd, true, true));
    (void)TAKE_FD(fd);
    return NULL;
}

static void on_connect(void *context, uint32_t events)
{
    struct console *console = context;

    (void)events;
    CLEANUP(cleanup_fd) int fd = accept4(console->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct err *err = add_end(console, fd, fd, false, true);
    if (err == NULL)
        (void)TAKE_FD(fd);
    err_free(err); /* the client sees that it was hung up on */
}

static struct err *open_socket(struct console *console, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        return err_new(ERR_INVALID, "console: socket path '%s' is longer than %zu bytes", path,
                       sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    console->path = strdup(path);
    console->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (console->path == NULL || console->listen_fd < 0)
        return err_errno(errno, "console: create a socket");
    (void)unlink(path);
    if (bind(console->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(console->listen_fd, 1) < 0)
        return err_errno(errno, "console: listen on '%s'", path);
    console->is_socket = true;
    return event_loop_watch(console->loop, console->listen_fd, EPOLLIN, on_connect, console,
                            &console->listener);
}

static struct err *open_where(struct console *console, const char *where)
{
    if (strcmp(where, "none") == 0)
        return NULL;
    if (strcmp(where, "stdio") == 0)
        return add_end(console, STDIN_FILENO, STDOUT_FILENO, true, false);
    if (strcmp(where, "pty") == 0)
        return open_pty(console);
    if (strncmp(where, "file=", 5) == 0 && where[5] != '\0')
        return open_file(console, where + 5);
    if (strncmp(where, "socket=", 7) == 0 && where[7] != '\0')
        return open_socket(console, where + 7);
    return err_new(ERR_INVALID, "console '%s' is not stdio, pty, none, file=PATH or socket=PATH",
                   where);
}

struct err *console_create(struct event_loop *loop, struct lock *device_lock, const char *where,
                           struct console **out_console)
{
    struct console *console = calloc(1, sizeof(*console));
    if (console == NULL)
        return err_new(ERR_NO_MEMORY, "console");
    console->loop = loop;
    console->device_lock = device_lock;
    console->listen_fd = -1;

    struct err *err = event_loop_timer(loop, on_retry, console, &console->retry);
    if (err == NULL)
        err = loop_wake_create(loop, on_wake, console, &console->wake);
    if (err == NULL)
        err = open_where(console, where);
    if (err != NULL) {
        console_destroy(console);
        return err;
    }

    *out_console = console;
    return NULL;
}

void console_destroy(struct console *console)
{
    if (console == NULL)
        return;
    for (size_t i = 0; i < ENDS_MAX; i++) {
        bool is_left = false;
        while (console->ends[i].is_used && end_write_some(&console->ends[i], &is_left))
            continue;
        if (console->ends[i].is_used)
            end_close(&console->ends[i]);
    }
    event_source_remove(console->listener);
    event_source_remove(console->retry);
    loop_wake_destroy(console->wake);
    cleanup_fd(&console->listen_fd);
    if (console->is_socket)
        (void)unlink(console->path);
    free(console->path);
    free(console);
}

struct serial_line console_line(struct console *console)
{
    return (struct serial_line){on_output, on_input_room, console};
}

void console_connect(struct console *console, struct device *serial)
{
    lock_acquire(console->device_lock);
    console->serial = serial;
    lock_release(console->device_lock);
}

struct err *console_open_client(struct console *console, int *out_fd)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return err_errno(errno, "console: create a socket pair");

    struct err *err = add_end(console, fds[0], fds[0], false, true);
    if (err != NULL) {
        cleanup_fd(&fds[0]);
        cleanup_fd(&fds[1]);
        return err;
    }
    *out_fd = fds[1];
    return NULL;
}

const char *console_path(const struct console *console)
{
    return console->path;
}
