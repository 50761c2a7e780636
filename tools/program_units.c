/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_units.c - see program_units.h.
 */
#include "tools/program_units.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/checked_math.h"

struct readable readable_bytes(uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct readable out;
    if (bytes < 1024) {
        (void)snprintf(out.text, sizeof(out.text), "%" PRIu64 " B", bytes);
        return out;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < ARRAY_COUNT(units); unit++)
        value /= 1024;
    (void)snprintf(out.text, sizeof(out.text), "%.*f %s", value < 100 ? 1 : 0, value, units[unit]);
    return out;
}

struct readable readable_ms(uint64_t ms)
{
    struct readable out;
    uint64_t minutes = ms / 60000;
    if (ms < 1000)
        (void)snprintf(out.text, sizeof(out.text), "%" PRIu64 " ms", ms);
    else if (ms < 60000)
        (void)snprintf(out.text, sizeof(out.text), "%.1f s", (double)ms / 1000);
    else if (minutes < 60)
        (void)snprintf(out.text, sizeof(out.text), "%" PRIu64 " min %" PRIu64 " s", minutes,
                       ms / 1000 % 60);
    else if (minutes < UINT64_C(48) * 60)
        (void)snprintf(out.text, sizeof(out.text), "%" PRIu64 " h %" PRIu64 " min", minutes / 60,
                       minutes % 60);
    else
        (void)snprintf(out.text, sizeof(out.text), "%" PRIu64 " d %" PRIu64 " h", minutes / 60 / 24,
                       minutes / 60 % 24);
    return out;
}

struct readable readable_us(uint64_t us)
{
    struct readable out;
    if (us >= 1000000)
        return readable_ms(us / 1000);
    if (us < 1000)
        (void)snprintf(out.text, sizeof(out.text), "%" PRIu64 " us", us);
    else
        (void)snprintf(out.text, sizeof(out.text), "%.1f ms", (double)us / 1000);
    return out;
}
