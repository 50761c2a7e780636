/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console_relay.c - see console_relay.h. Tested by: vm_ctl_test.c
 */
#include "tools/vm-ctl/console_relay.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE 0x1d /* Ctrl-], as in telnet and virsh */

enum relay_end { RELAY_GOES_ON, RELAY_ESCAPED, RELAY_INPUT_ENDED, RELAY_MACHINE_ENDED };

static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t done = write(fd, data, len);
        if (done < 0 && errno == EAGAIN) {
            struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
            (void)poll(&poll_fd, 1, -1);
            continue;
        }
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        data += done;
        len -= (size_t)done;
    }
    return true;
}

static enum relay_end pass_input(int console, bool is_terminal)
{
    char data[512];
    ssize_t len = read(STDIN_FILENO, data, sizeof(data));
    if (len < 0 && (errno == EINTR || errno == EAGAIN))
        return RELAY_GOES_ON;
    if (len <= 0)
        return RELAY_INPUT_ENDED;
    const char *escape = is_terminal ? memchr(data, ESCAPE, (size_t)len) : NULL;
    size_t count = escape == NULL ? (size_t)len : (size_t)(escape - data);
    if (!write_all(console, data, count))
        return RELAY_MACHINE_ENDED;
    return escape == NULL ? RELAY_GOES_ON : RELAY_ESCAPED;
}

static enum relay_end pass_output(int console)
{
    char data[4096];
    ssize_t len = read(console, data, sizeof(data));
    if (len < 0 && (errno == EINTR || errno == EAGAIN))
        return RELAY_GOES_ON;
    if (len <= 0 || !write_all(STDOUT_FILENO, data, (size_t)len))
        return RELAY_MACHINE_ENDED;
    return RELAY_GOES_ON;
}

/* After the end of input that is no terminal, what the machine says is still shown. */
static enum relay_end relay(int console, bool is_terminal)
{
    enum relay_end end = RELAY_GOES_ON;
    struct pollfd poll_fds[2] = {{.fd = console, .events = POLLIN},
                                 {.fd = STDIN_FILENO, .events = POLLIN}};
    while (end == RELAY_GOES_ON) {
        if (poll(poll_fds, 2, -1) < 0 && errno != EINTR)
            return RELAY_MACHINE_ENDED;
        if (poll_fds[0].revents != 0)
            end = pass_output(console);
        if (end == RELAY_GOES_ON && poll_fds[1].revents != 0)
            end = pass_input(console, is_terminal);
        if (end == RELAY_INPUT_ENDED && !is_terminal) {
            poll_fds[1].fd = -1;
            poll_fds[1].revents = 0;
            end = RELAY_GOES_ON;
        }
    }
    return end;
}

struct err *console_relay(int console, const char *name)
{
    struct termios saved;
    bool is_terminal = tcgetattr(STDIN_FILENO, &saved) == 0;
    if (is_terminal) {
        struct termios raw = saved;
        cfmakeraw(&raw);
        if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0)
            return err_errno(errno, "set the terminal up");
        (void)fprintf(stderr, "connected to '%s'; Ctrl-] ends the connection\r\n", name);
    }
    enum relay_end end = relay(console, is_terminal);
    if (is_terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &saved);
        (void)fprintf(stderr, "\n%s\n",
                      end == RELAY_MACHINE_ENDED ? "the machine closed its console"
                                                 : "disconnected; the machine goes on");
    }
    return NULL;
}
