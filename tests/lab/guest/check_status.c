/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_status.c - the line that a check keeps about itself, and its largest gap.
 *
 * The line is replaced by a rename, so that a reader never sees half of one.
 *
 * Tested by: the lab scenarios.
 */
#define _GNU_SOURCE
#include "tests/lab/guest/check_status.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define STATUS_FOLDER     "/run/checks"
#define WRITE_INTERVAL_NS 250000000ull

static volatile sig_atomic_t generation;

static void on_forget(int number)
{
    (void)number;
    generation++;
}

uint64_t check_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

struct check_status check_status_of(const char *name)
{
    struct sigaction action = {.sa_handler = on_forget, .sa_flags = SA_RESTART};

    mkdir(STATUS_FOLDER, 0755);
    sigaction(SIGUSR1, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    return (struct check_status){.name = name};
}

void check_status_write(struct check_status *status, const char *fmt, ...)
{
    uint64_t now = check_now_ns();
    char draft[128], path[128];
    va_list args;

    if (status->written_ns != 0 && now - status->written_ns < WRITE_INTERVAL_NS)
        return;
    status->written_ns = now;
    snprintf(path, sizeof(path), STATUS_FOLDER "/%s", status->name);
    snprintf(draft, sizeof(draft), STATUS_FOLDER "/.%s", status->name);
    FILE *file = fopen(draft, "we");
    if (file == NULL)
        return;
    fprintf(file, "%s ", status->name);
    va_start(args, fmt);
    vfprintf(file, fmt, args);
    va_end(args);
    fputc('\n', file);
    if (fclose(file) == 0)
        rename(draft, path);
}

static void gap_consider(struct check_gap *gap, uint64_t now_ns)
{
    if (gap->generation != (unsigned)generation) {
        gap->generation = (unsigned)generation;
        gap->max_ns = 0;
        gap->last_ns = now_ns;
    }
    if (gap->last_ns != 0 && now_ns > gap->last_ns && now_ns - gap->last_ns > gap->max_ns)
        gap->max_ns = now_ns - gap->last_ns;
}

void check_gap_event(struct check_gap *gap, uint64_t now_ns)
{
    gap_consider(gap, now_ns);
    gap->last_ns = now_ns;
}

double check_gap_ms(struct check_gap *gap, uint64_t now_ns)
{
    gap_consider(gap, now_ns);
    return (double)gap->max_ns / 1e6;
}
