/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preamble.c - see preamble.h. Tested by: session_record_test.c.
 */
#include "migration/preamble.h"

#include <string.h>

static const char magic[8] = {'F', 'E', 'R', 'R', 'Y', '/', '1', '\n'};

void preamble_write(const struct session_id *route, uint8_t out[PREAMBLE_BYTES])
{
    memcpy(out, magic, sizeof(magic));
    memcpy(out + sizeof(magic), route->bytes, SESSION_ID_BYTES);
}

bool preamble_read(const uint8_t bytes[PREAMBLE_BYTES], struct session_id *out_route)
{
    if (memcmp(bytes, magic, sizeof(magic)) != 0)
        return false;
    memcpy(out_route->bytes, bytes + sizeof(magic), SESSION_ID_BYTES);
    return true;
}
