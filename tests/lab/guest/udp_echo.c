/* SPDX-License-Identifier: Apache-2.0 */
/*
 * udp_echo.c - how long a guest does not answer, seen from outside.
 *
 * `udpecho` runs in the guest and returns every datagram; `udpprobe` runs outside, sends a number
 * each period, and records the largest time between two answers. No retransmission hides or
 * stretches an outage here, other than with TCP.
 *
 * Tested by: the lab scenarios.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "tests/lab/guest/check.h"
#include "tests/lab/guest/check_status.h"
#include "tests/lab/guest/pacer.h"

int udpecho_main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: udpecho PORT\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1]))};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        perror("udpecho: bind");
        return 1;
    }
    for (;;) {
        char data[2048];
        struct sockaddr_in peer;
        socklen_t peer_len = sizeof(peer);
        ssize_t len = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&peer, &peer_len);
        if (len >= 0)
            sendto(fd, data, (size_t)len, 0, (struct sockaddr *)&peer, peer_len);
    }
}

struct probe {
    uint64_t sent;
    uint64_t answered;
    uint64_t newest; /* the highest number that came back */
    uint64_t errors; /* answers that came twice or were never asked for */
    struct check_gap gap;
};

static void take_answers(struct probe *probe, int fd)
{
    uint64_t number;

    while (recv(fd, &number, sizeof(number), MSG_DONTWAIT) == sizeof(number)) {
        check_gap_event(&probe->gap, check_now_ns());
        probe->answered++;
        probe->errors += number == probe->newest || number > probe->sent;
        probe->newest = number > probe->newest ? number : probe->newest;
    }
}

int udpprobe_main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: udpprobe ADDRESS PORT PERIOD_MS\n");
        return 2;
    }
    struct check_status status = check_status_of("udpprobe");
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        perror("udpprobe: connect");
        return 1;
    }
    int pacer = pacer_open(strtoull(argv[3], NULL, 10) * 1000);
    struct pollfd fds[] = {{fd, POLLIN, 0}, {pacer, POLLIN, 0}};
    struct probe probe = {0};
    for (;;) {
        if (poll(fds, 2, -1) < 0) /* SIGUSR1 */
            continue;
        take_answers(&probe, fd);
        if (fds[1].revents) {
            pacer_wait(pacer);
            probe.sent++;
            /* A send that fails (no route yet, refused) is an answer that does not come. */
            (void)!send(fd, &probe.sent, sizeof(probe.sent), 0);
        }
        check_status_write(
            &status, "errors=%" PRIu64 " sent=%" PRIu64 " answered=%" PRIu64 " gap_ms=%.1f",
            probe.errors, probe.sent, probe.answered, check_gap_ms(&probe.gap, check_now_ns()));
    }
}
