/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_stream.c - a TCP connection that must survive: the guest counts, a peer counts along.
 *
 * `tcpserve` runs in the guest and sends the numbers 1, 2, 3 ... at a steady rate; `tcpcount` runs
 * outside, checks that none is missing or doubled, and sends each back, which tcpserve checks in
 * turn. The largest gap between two arrivals is what a user of the connection notices.
 *
 * Tested by: the lab scenarios.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lab/guest/check.h"
#include "tests/lab/guest/check_status.h"
#include "tests/lab/guest/pacer.h"

enum { STATUS_PERIOD_MS = 250 };

static bool read_number(int fd, uint64_t *out_number)
{
    return recv(fd, out_number, sizeof(*out_number), MSG_WAITALL) == sizeof(*out_number);
}

/* The guest may not listen yet. */
static int connect_patiently(const struct sockaddr_in *address)
{
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            return fd;
        close(fd);
        poll(NULL, 0, STATUS_PERIOD_MS);
    }
}

static void set_no_delay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* Serves until the peer is gone or another one calls: a guest that was brought back from a snapshot
 * holds a connection of which its peer knows nothing. */
static void serve_one(int client, int listener, uint64_t period_ms, struct check_status *status)
{
    int pacer = pacer_open(period_ms * 1000);
    struct pollfd fds[] = {{client, POLLIN, 0}, {pacer, POLLIN, 0}, {listener, POLLIN, 0}};
    uint64_t sent = 0, returned = 0, errors = 0, number = 0;
    bool is_open = true;

    while (is_open) {
        if (poll(fds, 3, -1) < 0) /* SIGUSR1 */
            continue;
        if (fds[2].revents)
            break;
        if (fds[0].revents) {
            is_open = read_number(client, &number);
            errors += is_open && number != ++returned;
        }
        if (is_open && fds[1].revents) {
            pacer_wait(pacer);
            sent++;
            is_open = send(client, &sent, sizeof(sent), 0) == sizeof(sent);
        }
        check_status_write(status, "errors=%" PRIu64 " sent=%" PRIu64 " returned=%" PRIu64, errors,
                           sent, returned);
    }
    close(pacer);
    close(client);
}

int tcpserve_main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: tcpserve PORT PERIOD_MS\n");
        return 2;
    }
    struct check_status status = check_status_of("tcpserve");
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1]))};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 4)) {
        perror("tcpserve: listen");
        return 1;
    }
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            continue;
        set_no_delay(client);
        serve_one(client, listener, strtoull(argv[2], NULL, 10), &status);
    }
}

int tcpcount_main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: tcpcount ADDRESS PORT\n");
        return 2;
    }
    struct check_status status = check_status_of("tcpcount");
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int server = connect_patiently(&address);
    set_no_delay(server);
    struct check_gap gap = {0};
    struct pollfd fds[] = {{server, POLLIN, 0}};
    uint64_t number, count = 0, errors = 0;
    for (;;) {
        if (poll(fds, 1, STATUS_PERIOD_MS) > 0) {
            if (!read_number(server, &number))
                break;
            check_gap_event(&gap, check_now_ns());
            errors += number != ++count;
            if (send(server, &number, sizeof(number), 0) != sizeof(number))
                break;
        }
        check_status_write(&status, "errors=%" PRIu64 " count=%" PRIu64 " gap_ms=%.1f is_open=1",
                           errors, count, check_gap_ms(&gap, check_now_ns()));
    }
    status.written_ns = 0;
    check_status_write(&status, "errors=%" PRIu64 " count=%" PRIu64 " gap_ms=%.1f is_open=0",
                       errors + 1, count, check_gap_ms(&gap, check_now_ns()));
    return 1;
}
