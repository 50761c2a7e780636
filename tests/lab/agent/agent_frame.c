/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_frame.c - reading and writing the lab agent's frames on blocking sockets.
 *
 * Tested by: every lab scenario; nothing in the lab runs without it.
 */
#include "tests/lab/agent/agent_frame.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

bool agent_read_exact(int fd, void *data, size_t len)
{
    char *at = data;

    while (len > 0) {
        ssize_t got = read(fd, at, len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        len -= (size_t)got;
    }
    return true;
}

bool agent_write_exact(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t put = write(fd, at, len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        at += put;
        len -= (size_t)put;
    }
    return true;
}

bool agent_frame_send(int fd, enum agent_frame_kind kind, const void *data, uint32_t len)
{
    uint8_t header[5] = {(uint8_t)kind};

    memcpy(header + 1, &len, sizeof(len));
    return agent_write_exact(fd, header, sizeof(header)) && agent_write_exact(fd, data, len);
}

bool agent_frame_receive_header(int fd, enum agent_frame_kind *out_kind, uint32_t *out_len)
{
    uint8_t header[5];

    if (!agent_read_exact(fd, header, sizeof(header)))
        return false;
    *out_kind = (enum agent_frame_kind)header[0];
    memcpy(out_len, header + 1, sizeof(*out_len));
    return true;
}
