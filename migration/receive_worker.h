/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receive_worker.h - the process of one session at the target: everything that touches what the
 * peer sends happens in it, so that a crash costs one session.
 *
 * Thread: the process's main thread.
 */
#ifndef MIGRATION_RECEIVE_WORKER_H
#define MIGRATION_RECEIVE_WORKER_H

#include "migration/session_id.h"

enum receive_worker_exit {
    RECEIVE_WORKER_MOVED = 0, /* a machine runs here */
    RECEIVE_WORKER_FAILED = 1,
    RECEIVE_WORKER_ANSWERED = 2, /* somebody asked about a session */
};

struct receive_worker_config {
    const char *certificates; /* folder; NULL: the configuration folder */
    const char *address;      /* of the peer, for the log */
    struct session_id route;
    int connection_fd; /* the session's first connection, after its preamble */
    int pass_fd;       /* Unix socket: one descriptor with each byte, of a data connection */
};

/* Serves the session to its end; takes both descriptors. */
enum receive_worker_exit receive_worker_run(const struct receive_worker_config *config);

#endif
