/* SPDX-License-Identifier: Apache-2.0 */
/*
 * labc.c - runs one command on another machine of the lab: `labc ADDRESS PORT COMMAND`.
 *
 * The harness reaches guests through a lab host that shares a network with them; this is the
 * second hop. Output and exit status are the command's own; 255 means that the agent there could
 * not be reached or went away.
 *
 * Tested by: every lab scenario that asks a guest something.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lab/agent/agent_frame.h"

enum { EXIT_UNREACHABLE = 255 };

static int fail(const char *what)
{
    fprintf(stderr, "labc: %s\n", what);
    return EXIT_UNREACHABLE;
}

static int relay_output(int agent)
{
    static char chunk[AGENT_CHUNK_BYTES];
    enum agent_frame_kind kind;
    uint32_t left;

    while (agent_frame_receive_header(agent, &kind, &left)) {
        int32_t code;
        if (kind == AGENT_FRAME_EXIT && left == sizeof(code))
            return agent_read_exact(agent, &code, sizeof(code)) ? code : fail("the agent hung up");
        while (left > 0) {
            uint32_t len = left < sizeof(chunk) ? left : (uint32_t)sizeof(chunk);
            if (!agent_read_exact(agent, chunk, len))
                return fail("the agent hung up");
            agent_write_exact(kind == AGENT_FRAME_STDOUT ? STDOUT_FILENO : STDERR_FILENO, chunk,
                              len);
            left -= len;
        }
    }
    return fail("the agent hung up");
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: labc ADDRESS PORT COMMAND\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        return fail("not an IPv4 address");
    int agent = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(agent, (struct sockaddr *)&address, sizeof(address)) != 0)
        return fail("the agent does not answer");
    uint32_t len = (uint32_t)strlen(argv[3]);
    if (!agent_write_exact(agent, &len, sizeof(len)) || !agent_write_exact(agent, argv[3], len) ||
        !agent_frame_send(agent, AGENT_FRAME_STDIN, NULL, 0))
        return fail("the agent hung up");
    return relay_output(agent);
}
