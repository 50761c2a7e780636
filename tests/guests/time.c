/* SPDX-License-Identifier: Apache-2.0 */
/*
 * time.c - the time by the kvmclock page, its continuity sampled, and the timer's ticks.
 */
#include "tests/guests/guest.h"

/* KVM's pvclock ABI. */
struct clock_page {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad2[2];
    uint8_t rest[32];
};

#define CLOCK_STOPPED 2u /* flags: KVM was told that the guest stood still; the guest clears it */

extern volatile struct clock_page clock_pages[2];

/* *out_flags are those that stood there when the clock was read. */
static uint64_t clock_read(unsigned cpu, uint8_t *out_flags)
{
    volatile struct clock_page *page = &clock_pages[cpu];
    uint32_t version;
    uint64_t ns;

    do {
        version = page->version;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        *out_flags = page->flags;
        uint64_t delta = read_tsc() - page->tsc_timestamp;
        delta = page->tsc_shift >= 0 ? delta << page->tsc_shift : delta >> -page->tsc_shift;
        ns = page->system_time +
             (uint64_t)((unsigned __int128)delta * page->tsc_to_system_mul >> 32);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while ((version & 1) != 0 || version != page->version);
    return ns;
}

uint64_t time_ns(unsigned cpu)
{
    uint8_t flags;

    return clock_read(cpu, &flags);
}

/* The largest gap between two samples, and any step backwards. A gap across which the CPU was
 * stopped and resumed, perhaps elsewhere, is told from those that others make who use the host. */
static struct {
    unsigned cpu; /* the sampler runs on the CPU it is given to */
    uint64_t samples, last_ns, gap_ns, gap_after_ns, back, stops, stop_ns;
} sampler;

static void clock_start(void)
{
    sampler.cpu = option_has_word("cpu1", "clock") ? 1 : 0;
}

/* True once after each stop. KVM writes the flags on this CPU before it enters the guest, so the
 * one instruction that clears them here loses nothing. */
static bool take_stop(uint8_t flags)
{
    if ((flags & CLOCK_STOPPED) == 0)
        return false;
    __asm__ volatile("andb %1, %0"
                     : "+m"(clock_pages[sampler.cpu].flags)
                     : "i"((uint8_t)~CLOCK_STOPPED));
    return true;
}

static void clock_sample(void)
{
    uint8_t flags;
    uint64_t now_ns = clock_read(sampler.cpu, &flags);
    bool was_stopped = take_stop(flags);
    uint64_t last_ns = sampler.last_ns;

    sampler.last_ns = now_ns;
    sampler.samples++;
    if (was_stopped) {
        sampler.stops++;
        sampler.stop_ns = 0;
    }
    if (last_ns == 0)
        return;
    if (now_ns < last_ns) {
        sampler.back++;
        return;
    }
    if (now_ns - last_ns > sampler.gap_ns) {
        sampler.gap_ns = now_ns - last_ns;
        sampler.gap_after_ns = last_ns;
    }
    if (was_stopped)
        sampler.stop_ns = now_ns - last_ns;
}

static void clock_step(void)
{
    /* A burst of samples, so that other jobs of this CPU come in between only now and then. */
    for (unsigned i = 0; i < 64; i++)
        clock_sample();
}

/* Gaps are those since the last report; the report itself, slow on a serial port, is not counted:
 * a stop that falls into it has no length. Stops are all so far, and the length of the latest. */
static void clock_report(void)
{
    print_number("samples", sampler.samples);
    print_number("back", sampler.back);
    print_number("gap_us", sampler.gap_ns / 1000);
    print_number("gap_at_us", sampler.gap_after_ns / 1000);
    print_number("stops", sampler.stops);
    print_number("stop_us", sampler.stop_ns / 1000);
    sampler.gap_ns = 0;
    sampler.last_ns = 0;
}

const struct job clock_job = {"clock", clock_start, clock_step, clock_report};

static void timer_nothing(void) {}

static void timer_step(void)
{
    if (option_number("sleep", 0) != 0)
        wait_for_interrupt();
}

static void timer_report(void)
{
    print_number("ticks0", __atomic_load_n(&timer_ticks[0], __ATOMIC_RELAXED));
    print_number("ticks1", __atomic_load_n(&timer_ticks[1], __ATOMIC_RELAXED));
}

const struct job timer_job = {"timer", timer_nothing, timer_step, timer_report};
