/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_address.c - see host_address.h.
 */
#include "migration/host_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/option_table.h"

DEFINE_CLEANUP(addresses, struct addrinfo, freeaddrinfo)

struct err *host_address_parse(const char *text, struct host_address *out_address)
{
    const char *host = text;
    const char *colon = strrchr(text, ':');
    size_t host_len = strlen(text);
    uint64_t port = MIGRATION_PORT_DEFAULT;

    if (text[0] == '[') {
        const char *close = strchr(text, ']');
        if (close == NULL || (close[1] != '\0' && close[1] != ':'))
            return err_new(ERR_INVALID, "host '%s': write HOST, HOST:PORT or [ADDRESS]:PORT", text);
        host = text + 1;
        host_len = (size_t)(close - host);
        colon = close[1] == ':' ? close + 1 : NULL;
    } else if (colon != NULL && strchr(text, ':') == colon) {
        host_len = (size_t)(colon - text);
    } else {
        colon = NULL; /* no port, or a bare IPv6 address */
    }
    if (colon != NULL)
        TRY(option_number_parse("port", colon + 1, 0, UINT16_MAX, &port));
    if (host_len == 0 || host_len > HOST_NAME_MAX_BYTES)
        return err_new(ERR_INVALID, "host '%s': not a name or address", text);

    memcpy(out_address->host, host, host_len);
    out_address->host[host_len] = '\0';
    out_address->port = (uint16_t)port;
    return NULL;
}

static struct err *resolve(const struct host_address *address, int flags,
                           struct addrinfo **out_list)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    char port[8];

    (void)snprintf(port, sizeof(port), "%u", address->port);
    int result = getaddrinfo(address->host, port, &hints, out_list);
    if (result != 0)
        return err_new(ERR_NOT_FOUND, "host '%s': %s", address->host, gai_strerror(result));
    return NULL;
}

/* 0, or what went wrong. */
static int connect_one(int fd, const struct addrinfo *info, uint32_t timeout_ms)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    int result = 0;
    socklen_t len = sizeof(result);

    if (connect(fd, info->ai_addr, info->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    if (poll(&ready, 1, (int)timeout_ms) != 1)
        return ETIMEDOUT;
    (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &len);
    return result;
}

struct err *host_address_connect(const struct host_address *address, uint32_t timeout_ms,
                                 int *out_fd)
{
    CLEANUP(cleanup_addresses) struct addrinfo *list = NULL;
    int errnum = EHOSTUNREACH;
    const int on = 1;

    TRY(resolve(address, 0, &list));
    for (const struct addrinfo *info = list; info != NULL; info = info->ai_next) {
        CLEANUP(cleanup_fd)
        int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        errnum = fd < 0 ? errno : connect_one(fd, info, timeout_ms);
        if (errnum == 0) {
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            *out_fd = TAKE_FD(fd);
            return NULL;
        }
    }
    if (errnum == ECONNREFUSED)
        return err_new(ERR_NOT_FOUND,
                       "nobody listens on '%s' port %u; start 'vm-receive' on that host",
                       address->host, address->port);
    return err_errno(errnum, "connect to '%s' port %u", address->host, address->port);
}

struct err *host_address_listen(const struct host_address *address, int *out_fd, uint16_t *out_port)
{
    CLEANUP(cleanup_addresses) struct addrinfo *list = NULL;
    struct sockaddr_in6 bound = {0};
    socklen_t len = sizeof(bound);
    const int on = 1;

    TRY(resolve(address, AI_PASSIVE, &list));
    CLEANUP(cleanup_fd) int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(errno, "listen");
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0)
        return err_errno(errno, "listen on '%s' port %u", address->host, address->port);
    /* The port is at the same place in addresses of both families. */
    if (getsockname(fd, (struct sockaddr *)&bound, &len) != 0)
        return err_errno(errno, "listen on '%s'", address->host);
    *out_port = ntohs(bound.sin6_port);
    *out_fd = TAKE_FD(fd);
    return NULL;
}
