/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hook.c - see test_hook.h.
 */
#include "base/test_hook.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

static bool is_named(const char *variable, const char *name)
{
    const char *value = getenv(variable);

    return value != NULL && strcmp(value, name) == 0;
}

/* Where nobody listens, nobody wants to hold. */
static void hold(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP(cleanup_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char byte;

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return;
    ssize_t got = read(fd, &byte, 1);
    (void)got; /* the end of the connection, however it comes */
}

void test_hook(const char *name)
{
    const char *socket_path = getenv("FERRY_TEST_HOLD_SOCKET");

    if (is_named("FERRY_TEST_STOP_AT", name))
        (void)raise(SIGSTOP);
    if (socket_path != NULL && is_named("FERRY_TEST_HOLD_AT", name))
        hold(socket_path);
}
