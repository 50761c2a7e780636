/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_id.c - see session_id.h. Tested by: session_record_test.c.
 */
#include "migration/session_id.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "migration/openssl.h"

struct err *session_id_create(struct session_id *out_id)
{
    if (getrandom(out_id->bytes, sizeof(out_id->bytes), 0) != (ssize_t)sizeof(out_id->bytes))
        return err_errno(errno, "random session id");
    return NULL;
}

struct err *session_id_from_message(ProtobufCBinaryData data, struct session_id *out_id)
{
    if (data.len != SESSION_ID_BYTES)
        return err_new(ERR_INVALID, "session id of %zu bytes", data.len);
    memcpy(out_id->bytes, data.data, SESSION_ID_BYTES);
    return NULL;
}

ProtobufCBinaryData session_id_message(struct session_id *id)
{
    return (ProtobufCBinaryData){.len = SESSION_ID_BYTES, .data = id->bytes};
}

void session_id_text(const struct session_id *id, char out[SESSION_ID_TEXT])
{
    for (size_t i = 0; i < SESSION_ID_BYTES; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", id->bytes[i]);
}

bool session_id_equal(const struct session_id *a, const struct session_id *b)
{
    return CRYPTO_memcmp(a->bytes, b->bytes, SESSION_ID_BYTES) == 0;
}
