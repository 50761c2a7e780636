/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_progress.c - see disk_progress.h. Tested by: tests/disk
 */
#include "tools/vm-disk/disk_progress.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "tools/program_units.h"

#define REDRAW_NS (200 * NS_PER_MS)

static volatile sig_atomic_t is_cancelled;

static void cancel(int signal_number)
{
    (void)signal_number;
    is_cancelled = 1;
}

void disk_progress_begin(struct disk_progress *progress, const char *what, uint64_t total_bytes,
                         bool is_quiet)
{
    struct sigaction action = {.sa_handler = cancel};

    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    *progress = (struct disk_progress){
        .what = what,
        .total_bytes = total_bytes,
        .started_ns = clock_monotonic_ns(),
        .is_drawn = !is_quiet && isatty(STDERR_FILENO) == 1,
    };
}

struct err *disk_progress_at(struct disk_progress *progress, uint64_t done_bytes)
{
    uint64_t now_ns = clock_monotonic_ns();

    if (is_cancelled)
        return err_new(ERR_CANCELLED, "%s: cancelled", progress->what);
    if (!progress->is_drawn || now_ns - progress->drawn_ns < REDRAW_NS)
        return NULL;

    progress->drawn_ns = now_ns;
    uint64_t ms = MAX((now_ns - progress->started_ns) / NS_PER_MS, (uint64_t)1);
    (void)fprintf(stderr, "\r%s: %3u %%  %s of %s, %s/s   ", progress->what,
                  (unsigned)(progress->total_bytes == 0
                                 ? 100
                                 : (double)done_bytes * 100 / (double)progress->total_bytes),
                  readable_bytes(done_bytes).text, readable_bytes(progress->total_bytes).text,
                  readable_bytes((uint64_t)((double)done_bytes * 1000 / (double)ms)).text);
    return NULL;
}

uint64_t disk_progress_end(struct disk_progress *progress)
{
    if (progress->is_drawn && progress->drawn_ns != 0)
        (void)fprintf(stderr, "\r\033[K");
    return clock_monotonic_ns() - progress->started_ns;
}
