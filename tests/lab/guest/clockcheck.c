/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clockcheck.c - watches that the guest's monotonic clock never runs backwards.
 *
 * It also records the largest gap between two samples: what a guest thread notices of a pause.
 * One sampler is pinned to each vCPU in turn, so that clocks that differ between vCPUs show too.
 *
 * Tested by: the lab scenarios.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lab/guest/check.h"
#include "tests/lab/guest/check_status.h"
#include "tests/lab/guest/pacer.h"

enum { SAMPLES_PER_VCPU = 50 };

static void move_to_vcpu(unsigned vcpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(vcpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

int clockcheck_main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: clockcheck PERIOD_MS\n");
        return 2;
    }
    unsigned vcpu_count = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    struct check_status status = check_status_of("clockcheck");
    struct check_gap gap = {0};
    int pacer = pacer_open(strtoull(argv[1], NULL, 10) * 1000);
    uint64_t last = 0, errors = 0;
    for (uint64_t sample = 0;; sample++) {
        if (sample % SAMPLES_PER_VCPU == 0)
            move_to_vcpu((unsigned)(sample / SAMPLES_PER_VCPU) % vcpu_count);
        uint64_t now = check_now_ns();
        errors += now < last;
        last = now;
        check_gap_event(&gap, now);
        check_status_write(&status, "errors=%" PRIu64 " samples=%" PRIu64 " gap_ms=%.1f", errors,
                           sample, check_gap_ms(&gap, now));
        pacer_wait(pacer);
    }
}
