/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cancel.c - see cancel.h.
 */
#include "base/cancel.h"

#include <signal.h>
#include <stddef.h>

#include "base/checked_math.h"

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

static struct sigaction before[ARRAY_COUNT(signals)];
static volatile sig_atomic_t is_asked;

static void ask(int number)
{
    (void)number;
    is_asked = 1;
}

/* Calls go on after it, because it is the steps that ask. Who started the program in the
 * background, or with nohup(1), has said that a signal is not for it. */
void cancel_listen(void)
{
    struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART | (int)SA_RESETHAND};

    for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
        if (sigaction(signals[i], NULL, &before[i]) == 0 && before[i].sa_handler != SIG_IGN)
            (void)sigaction(signals[i], &action, NULL);
}

void cancel_ignore(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
        (void)sigaction(signals[i], &before[i], NULL);
    is_asked = 0;
}

struct err *cancel_check(void)
{
    return is_asked == 0 ? NULL : err_new(ERR_CANCELLED, "it was cancelled");
}
