/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.c - see clock.h.
 */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

/* Written by tests before and after the threads under test run; atomics only keep TSan quiet about
 * a loop thread that polls the time meanwhile. */
static atomic_bool is_fake;
static atomic_uint_fast64_t fake_monotonic_ns;
static atomic_uint_fast64_t fake_realtime_ns;

static uint64_t read_ns(clockid_t id)
{
    struct timespec now;

    (void)clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return atomic_load(&is_fake) ? atomic_load(&fake_monotonic_ns) : read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ns(void)
{
    return atomic_load(&is_fake) ? atomic_load(&fake_realtime_ns) : read_ns(CLOCK_REALTIME);
}

void clock_fake_start(uint64_t monotonic_ns, uint64_t realtime_ns)
{
    atomic_store(&fake_monotonic_ns, monotonic_ns);
    atomic_store(&fake_realtime_ns, realtime_ns);
    atomic_store(&is_fake, true);
}

void clock_fake_advance(uint64_t ns)
{
    atomic_fetch_add(&fake_monotonic_ns, ns);
    atomic_fetch_add(&fake_realtime_ns, ns);
}

void clock_fake_stop(void)
{
    atomic_store(&is_fake, false);
}
