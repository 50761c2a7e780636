/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_address.h - "host-b", "10.0.0.2:7420", "[::1]:7420": where a host listens.
 *
 * Thread: any; connecting blocks up to its timeout.
 */
#ifndef MIGRATION_HOST_ADDRESS_H
#define MIGRATION_HOST_ADDRESS_H

#include <stdint.h>

#include "base/err.h"

#define MIGRATION_PORT_DEFAULT 7420u
#define HOST_NAME_MAX_BYTES    253u

struct host_address {
    char host[HOST_NAME_MAX_BYTES + 1];
    uint16_t port;
};

ERR_RESULT host_address_parse(const char *text, struct host_address *out_address);

/* A connected TCP socket without delay of small writes. Tries every address of the name. */
ERR_RESULT host_address_connect(const struct host_address *address, uint32_t timeout_ms,
                                int *out_fd);
/* A listening socket; port 0 lets the kernel choose, *out_port says which. */
ERR_RESULT host_address_listen(const struct host_address *address, int *out_fd, uint16_t *out_port);

#endif
