/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pacer.c - wakes a check program at a steady rate, without drift.
 *
 * Tested by: the lab scenarios.
 */
#include "tests/lab/guest/pacer.h"

#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

int pacer_open(uint64_t period_us)
{
    struct timespec period = {(time_t)(period_us / 1000000), (long)(period_us % 1000000) * 1000};
    struct itimerspec setting = {.it_interval = period, .it_value = period};
    int pacer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

    if (pacer >= 0)
        timerfd_settime(pacer, 0, &setting, NULL);
    return pacer;
}

void pacer_wait(int pacer)
{
    uint64_t ticks;

    while (read(pacer, &ticks, sizeof(ticks)) < 0)
        continue;
}
