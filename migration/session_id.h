/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_id.h - 128 random bits that name one move of one machine.
 *
 * Thread: any.
 */
#ifndef MIGRATION_SESSION_ID_H
#define MIGRATION_SESSION_ID_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define SESSION_ID_BYTES 16u
#define SESSION_ID_TEXT  33u /* hexadecimal, with terminator */

struct session_id {
    uint8_t bytes[SESSION_ID_BYTES];
};

ERR_RESULT session_id_create(struct session_id *out_id);
ERR_RESULT session_id_from_message(ProtobufCBinaryData data, struct session_id *out_id);
/* A view of the id, for a message. */
ProtobufCBinaryData session_id_message(struct session_id *id);
void session_id_text(const struct session_id *id, char out[SESSION_ID_TEXT]);

/* In constant time. */
bool session_id_equal(const struct session_id *a, const struct session_id *b);

#endif
