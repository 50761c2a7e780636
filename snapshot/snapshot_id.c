/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_id.c - see snapshot_id.h.
 */
#include "snapshot/snapshot_id.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"

/* '0' stands for a digit, 'x' for a lower-case hexadecimal one, others for themselves. */
static const char pattern[SNAPSHOT_ID_LEN + 1] = "00000000T000000.000000Z-xxxxxxxx";

#define YEAR_MAX 2500u /* what 64 bits of nanoseconds can say */

struct err *snapshot_id_make(uint64_t realtime_ns, struct snapshot_id *out_id)
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    uint32_t salt = 0;
    struct tm utc;
    char day[16];

    if (gmtime_r(&seconds, &utc) == NULL)
        return err_errno(errno, "name the snapshot by the time");
    if (getrandom(&salt, sizeof(salt), 0) != (ssize_t)sizeof(salt))
        return err_errno(errno, "draw random bytes for the snapshot's name");
    (void)strftime(day, sizeof(day), "%Y%m%dT%H%M%S", &utc);
    (void)snprintf(out_id->text, sizeof(out_id->text), "%s.%06uZ-%08x", day,
                   (unsigned)(realtime_ns % NS_PER_S / NS_PER_US), salt);
    ASSERT(snapshot_id_is_valid(out_id->text));
    return NULL;
}

/* `count` digits, which are there. */
static unsigned digits(const char *text, unsigned count)
{
    unsigned value = 0;

    for (unsigned i = 0; i < count; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    return value;
}

uint64_t snapshot_id_time_ns(const struct snapshot_id *id)
{
    const char *text = id->text;
    unsigned year = digits(text, 4);
    struct tm utc = {.tm_year = (int)year - 1900,
                     .tm_mon = (int)digits(text + 4, 2) - 1,
                     .tm_mday = (int)digits(text + 6, 2),
                     .tm_hour = (int)digits(text + 9, 2),
                     .tm_min = (int)digits(text + 11, 2),
                     .tm_sec = (int)digits(text + 13, 2)};

    if (year < 1970 || year > YEAR_MAX)
        return 0;
    time_t seconds = timegm(&utc);
    return seconds < 0 ? 0 : (uint64_t)seconds * NS_PER_S + digits(text + 16, 6) * NS_PER_US;
}

static bool character_matches(char wanted, char c)
{
    bool is_digit = c >= '0' && c <= '9';

    if (wanted == '0')
        return is_digit;
    if (wanted == 'x')
        return is_digit || (c >= 'a' && c <= 'f');
    return c == wanted;
}

bool snapshot_id_is_valid(const char *text)
{
    for (size_t i = 0; i < SNAPSHOT_ID_LEN; i++)
        if (!character_matches(pattern[i], text[i]))
            return false; /* also at the end of a shorter text */
    return text[SNAPSHOT_ID_LEN] == '\0';
}
