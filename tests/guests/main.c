/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - gives jobs to CPUs, steps them for ever and reports in between.
 */
#include "tests/guests/guest.h"

static const struct job *const jobs[] = {&pattern_job, &fpu_job,   &clock_job, &dirty_job,
                                         &disk_job,    &disk1_job, &timer_job};
#define JOB_COUNT (sizeof(jobs) / sizeof(jobs[0]))

static volatile bool is_ready;

static void report(unsigned index, uint64_t now_ns)
{
    print_text(jobs[index]->name);
    print_number("ms", now_ns / 1000000);
    jobs[index]->report();
    print_end();
}

static void run_jobs(unsigned cpu)
{
    uint64_t interval_ns = option_number("report_ms", 500) * 1000000;
    uint64_t next_ns = time_ns(cpu) + interval_ns;
    const char *key = cpu == 0 ? "cpu0" : "cpu1";
    bool is_mine[JOB_COUNT];
    bool is_idle = true;

    for (unsigned i = 0; i < JOB_COUNT; i++) {
        is_mine[i] = option_has_word(key, jobs[i]->name);
        is_idle = is_idle && !is_mine[i];
    }
    for (;;) {
        for (unsigned i = 0; i < JOB_COUNT; i++)
            if (is_mine[i])
                jobs[i]->step();
        if (is_idle)
            wait_for_interrupt();
        uint64_t now_ns = time_ns(cpu);
        if (now_ns < next_ns)
            continue;
        for (unsigned i = 0; i < JOB_COUNT; i++)
            if (is_mine[i])
                report(i, now_ns);
        next_ns = now_ns + interval_ns;
    }
}

void guest_main(unsigned cpu);

void guest_main(unsigned cpu)
{
    if (cpu == 0) {
        print_text("guest up");
        print_end();
        ram_start();
        for (unsigned i = 0; i < JOB_COUNT; i++)
            if (option_has_word("cpu0", jobs[i]->name) || option_has_word("cpu1", jobs[i]->name))
                jobs[i]->start();
        print_text("guest ready");
        print_end();
        is_ready = true;
        if (option_number("cpus", 1) > 1)
            start_second_cpu();
    }
    run_jobs(cpu);
}

void guest_exception(uint64_t vector, uint64_t error_or_rip, uint64_t rip_or_cs, uint64_t cr2);

void guest_exception(uint64_t vector, uint64_t error_or_rip, uint64_t rip_or_cs, uint64_t cr2)
{
    print_end();
    print_text("EXCEPTION");
    print_number("vector", vector);
    print_number("word1", error_or_rip);
    print_number("word2", rip_or_cs);
    print_number("cr2", cr2);
    print_end();
}
