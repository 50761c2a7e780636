/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_size.c - see program_size.h.
 */
#include "tools/program_size.h"

#include <ctype.h>
#include <string.h>

#include "base/checked_math.h"

/* Powers of 1024; false for what is no unit. */
static bool unit_of(const char *text, unsigned *out_power)
{
    static const char letters[] = "kmgtpe";

    if (text[0] == '\0' || strcmp(text, "B") == 0) {
        *out_power = 0;
        return true;
    }
    const char *letter = strchr(letters, tolower((unsigned char)text[0]));
    if (letter == NULL || (strcmp(text + 1, "iB") != 0 && text[1] != '\0'))
        return false;
    *out_power = (unsigned)(letter - letters) + 1;
    return true;
}

struct err *program_size_parse(const char *what, const char *text, uint64_t *out_bytes)
{
    const char *at = text;
    uint64_t bytes = 0;
    unsigned power;
    bool fits = isdigit((unsigned char)*at) != 0;

    for (; isdigit((unsigned char)*at); at++)
        fits = fits && checked_mul(bytes, 10, &bytes) &&
               checked_add(bytes, (uint64_t)(*at - '0'), &bytes);
    if (!fits || !unit_of(at, &power))
        return err_new(ERR_INVALID, "%s '%s' is not a size such as 4096, 64k, 10G or 1T", what,
                       text);
    for (unsigned i = 0; i < power; i++)
        if (!checked_mul(bytes, 1024, &bytes))
            return err_new(ERR_INVALID, "%s '%s' is too large", what, text);
    *out_bytes = bytes;
    return NULL;
}
