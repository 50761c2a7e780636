/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preamble.h - the bytes in clear before TLS that bring a connection to the right process.
 *
 * The listener hands each session to a process of its own. Later connections of the session must
 * reach the same process, and who may read TLS there is only that process; so every connection
 * begins with "FERRY/1\n" and a route of 16 bytes: zeros for a new session, else what the welcome
 * said. A route is no secret and proves nothing: the session id inside TLS does. Thread: any.
 */
#ifndef MIGRATION_PREAMBLE_H
#define MIGRATION_PREAMBLE_H

#include <stdbool.h>
#include <stdint.h>

#include "migration/session_id.h"

#define PREAMBLE_BYTES 24u

static const struct session_id route_new_session = {{0}};

void preamble_write(const struct session_id *route, uint8_t out[PREAMBLE_BYTES]);
/* False when the bytes are no preamble. */
bool preamble_read(const uint8_t bytes[PREAMBLE_BYTES], struct session_id *out_route);

#endif
