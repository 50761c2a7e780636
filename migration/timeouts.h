/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timeouts.h - how long a host waits for the other, in one place.
 */
#ifndef MIGRATION_TIMEOUTS_H
#define MIGRATION_TIMEOUTS_H

#include <stdint.h>

struct timeouts {
    uint32_t connect_ms;   /* TCP connection, and its TLS handshake */
    uint32_t hello_ms;     /* the first frame of a connection, and its answer */
    uint32_t heartbeat_ms; /* between two of ours */
    uint32_t silence_ms;   /* nothing at all from the other: the link is lost */
    uint32_t accept_ms;    /* the target builds an empty machine and checks the offer */
    uint32_t drain_ms;     /* the target takes in the last pages */
    uint32_t ready_ms;     /* ... and loads the state */
    uint32_t commit_ms;    /* a ready target waits for commit */
    uint32_t running_ms;   /* the target answers commit */
    uint32_t ask_again_ms; /* between two questions about an undecided session */
};

static const struct timeouts timeouts_default = {
    .connect_ms = 10000,
    .hello_ms = 10000,
    .heartbeat_ms = 1000,
    .silence_ms = 10000,
    .accept_ms = 60000,
    .drain_ms = 60000,
    .ready_ms = 60000,
    .commit_ms = 60000,
    .running_ms = 20000,
    .ask_again_ms = 500,
};

#endif
