/* SPDX-License-Identifier: Apache-2.0 */
/*
 * labd.c - runs shell commands for the harness inside a lab host or a lab guest.
 *
 * One process a connection, one command a connection. A client that hangs up takes its command
 * with it (the whole process group), so that a harness that dies leaves nothing busy behind.
 *
 * Tested by: every lab scenario; nothing in the lab runs without it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lab/agent/agent_frame.h"

struct command {
    pid_t pid;
    int input;     /* -1 after end of input */
    int output[2]; /* stdout, stderr; -1 after their end */
};

static char chunk[AGENT_CHUNK_BYTES];

static bool command_start(const char *line, struct command *out_command)
{
    int input[2], output[2], errors[2];

    if (pipe2(input, O_CLOEXEC) || pipe2(output, O_CLOEXEC) || pipe2(errors, O_CLOEXEC))
        return false;
    pid_t pid = fork();
    if (pid < 0)
        return false;
    if (pid == 0) {
        setsid();
        dup2(input[0], STDIN_FILENO);
        dup2(output[1], STDOUT_FILENO);
        dup2(errors[1], STDERR_FILENO);
        signal(SIGCHLD, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    close(input[0]);
    close(output[1]);
    close(errors[1]);
    *out_command = (struct command){pid, input[1], {output[0], errors[0]}};
    return true;
}

static void end_input(struct command *command)
{
    if (command->input >= 0)
        close(command->input);
    command->input = -1;
}

/* Hands one input frame to the command; false when the client is gone. */
static bool forward_input(int client, struct command *command)
{
    enum agent_frame_kind kind;
    uint32_t left;

    if (!agent_frame_receive_header(client, &kind, &left) || kind != AGENT_FRAME_STDIN)
        return false;
    if (left == 0)
        end_input(command);
    while (left > 0) {
        uint32_t len = left < sizeof(chunk) ? left : (uint32_t)sizeof(chunk);
        if (!agent_read_exact(client, chunk, len))
            return false;
        if (command->input >= 0 && !agent_write_exact(command->input, chunk, len))
            end_input(command);
        left -= len;
    }
    return true;
}

/* Hands what one pipe holds to the client; false when the client is gone. */
static bool forward_output(int client, struct command *command, int which)
{
    ssize_t got = read(command->output[which], chunk, sizeof(chunk));

    if (got > 0)
        return agent_frame_send(client, which == 0 ? AGENT_FRAME_STDOUT : AGENT_FRAME_STDERR, chunk,
                                (uint32_t)got);
    close(command->output[which]);
    command->output[which] = -1;
    return true;
}

static bool relay(int client, struct command *command)
{
    while (command->output[0] >= 0 || command->output[1] >= 0) {
        struct pollfd fds[] = {
            {command->output[0], POLLIN, 0},
            {command->output[1], POLLIN, 0},
            {client, POLLIN, 0},
        };
        if (poll(fds, 3, -1) < 0)
            return false;
        for (int which = 0; which < 2; which++) {
            if (fds[which].revents && !forward_output(client, command, which))
                return false;
        }
        if (fds[2].revents && !forward_input(client, command))
            return false;
    }
    return true;
}

static void serve(int client)
{
    struct command command;
    uint32_t len;

    if (!agent_read_exact(client, &len, sizeof(len)) || len > AGENT_COMMAND_BYTES_MAX)
        return;
    char *line = calloc(1, len + 1u);
    if (line == NULL || !agent_read_exact(client, line, len) || !command_start(line, &command))
        return;
    if (!relay(client, &command)) {
        kill(-command.pid, SIGKILL);
        return;
    }
    int status;
    waitpid(command.pid, &status, 0);
    int32_t code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    agent_frame_send(client, AGENT_FRAME_EXIT, &code, sizeof(code));
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: labd PORT\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1]))};
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 64)) {
        perror("labd: listen");
        return 1;
    }
    /* Whoever started the agent goes on when it can be reached, and not before. */
    if (daemon(0, 1) != 0) {
        perror("labd: daemon");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (fork() == 0) {
            close(listener);
            signal(SIGCHLD, SIG_DFL);
            serve(client);
            return 0;
        }
        close(client);
    }
}
