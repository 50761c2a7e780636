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

extern volatile struct clock_page clock_pages[2];

uint64_t time_ns(unsigned cpu)
{
    volatile struct clock_page *page = &clock_pages[cpu];
    uint32_t version;
    uint64_t ns;

    do {
        version = page->version;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        uint64_t delta = read_tsc() - page->tsc_timestamp;
        delta = page->tsc_shift >= 0 ? delta << page->tsc_shift : delta >> -page->tsc_shift;
        ns = page->system_time +
             (uint64_t)((unsigned __int128)delta * page->tsc_to_system_mul >> 32);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while ((version & 1) != 0 || version != page->version);
    return ns;
}

/* The largest gap between two samples (by the TSC and by the clock) and any step backwards. The
 * sampler runs on the CPU it is given to; option clock_cpu says which. */
static struct {
    unsigned cpu;
    uint64_t samples, last_ns, gap_ns, gap_after_ns, back;
} sampler;

static void clock_start(void)
{
    sampler.cpu = option_has_word("cpu1", "clock") ? 1 : 0;
}

static void clock_step(void)
{
    /* A burst of samples, so that other jobs of this CPU come in between only now and then. */
    for (unsigned i = 0; i < 64; i++) {
        uint64_t now_ns = time_ns(sampler.cpu);
        if (sampler.last_ns != 0 && now_ns < sampler.last_ns)
            sampler.back++;
        else if (sampler.last_ns != 0 && now_ns - sampler.last_ns > sampler.gap_ns) {
            sampler.gap_ns = now_ns - sampler.last_ns;
            sampler.gap_after_ns = sampler.last_ns;
        }
        sampler.last_ns = now_ns;
        sampler.samples++;
    }
}

/* The gap is of the time since the last report; the report itself, slow on a serial port, is not
 * counted. */
static void clock_report(void)
{
    print_number("samples", sampler.samples);
    print_number("back", sampler.back);
    print_number("gap_us", sampler.gap_ns / 1000);
    print_number("gap_at_us", sampler.gap_after_ns / 1000);
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
