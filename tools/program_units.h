/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program_units.h - numbers as people read them. Thread: any.
 */
#ifndef TOOLS_PROGRAM_UNITS_H
#define TOOLS_PROGRAM_UNITS_H

#include <stdint.h>

struct readable {
    char text[32];
};

struct readable readable_bytes(uint64_t bytes); /* "812 B", "1.5 MiB" */
struct readable readable_ms(uint64_t ms);       /* "12 ms", "3.4 s", "2 h 5 min" */
struct readable readable_us(uint64_t us);       /* "87 us", "12.3 ms", then as above */

#endif
