/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hook.c - see test_hook.h.
 */
#include "base/test_hook.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

void test_hook(const char *name)
{
    const char *stop_at = getenv("FERRY_TEST_STOP_AT");

    if (stop_at != NULL && strcmp(stop_at, name) == 0)
        (void)raise(SIGSTOP);
}
