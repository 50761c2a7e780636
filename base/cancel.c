/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cancel.c - see cancel.h.
 */
#include "base/cancel.h"

#include <signal.h>
#include <stddef.h>

#include "base/checked_math.h"

static const int signals[] = {SIGINT, SIGTERM};

static volatile sig_atomic_t is_asked;

static void ask(int number)
{
    (void)number;
    is_asked = 1;
}

/* Calls go on after it, because it is the steps that ask. */
void cancel_listen(void)
{
    struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART | (int)SA_RESETHAND};

    for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
        (void)sigaction(signals[i], &action, NULL);
}

void cancel_ignore(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
        (void)signal(signals[i], SIG_DFL);
    is_asked = 0;
}

struct err *cancel_check(void)
{
    return is_asked == 0 ? NULL : err_new(ERR_CANCELLED, "it was cancelled");
}
