/* SPDX-License-Identifier: Apache-2.0 */
/*
 * assert.h - for our own mistakes only; on in every build.
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

#define ASSERT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond))                                                                               \
            assert_failed(#cond, __FILE__, __LINE__);                                              \
    } while (0)

#define UNREACHABLE() assert_failed("not reached", __FILE__, __LINE__)

static inline __attribute__((noreturn)) void assert_failed(const char *what, const char *file,
                                                           int line)
{
    (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, what);
    abort();
}

#endif
