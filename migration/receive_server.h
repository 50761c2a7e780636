/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receive_server.h - listens for machines that arrive, and gives each session a process.
 *
 * This process reads nothing of a connection but its preamble of 24 bytes. Thread: loop only.
 */
#ifndef MIGRATION_RECEIVE_SERVER_H
#define MIGRATION_RECEIVE_SERVER_H

#include <stdbool.h>

#include "migration/host_address.h"

struct event_loop;
struct receive_server;

struct receive_server_config {
    struct host_address address; /* port 0: the kernel chooses */
    const char *certificates;    /* folder; NULL: the configuration folder */
    bool once;                   /* stop the loop after the first machine has arrived */
};

/* The certificates are loaded once here, to complain early; sessions load them again, so that new
 * ones count at once. */
ERR_RESULT receive_server_create(struct event_loop *loop,
                                 const struct receive_server_config *config,
                                 struct receive_server **out_server);
/* Stops listening. Sessions go on by themselves. Accepts NULL. */
void receive_server_destroy(struct receive_server *server);
uint16_t receive_server_port(const struct receive_server *server);

#endif
