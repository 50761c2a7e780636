/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.c - see log.h. A line is composed in one buffer and written in one call, so that lines of
 * several threads do not mix.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_BYTES_MAX  2048
#define RATE_PER_SECOND 10

static atomic_int level_max = LOG_INFO;
static const char *_Atomic program = "ferry";

void log_set_level(enum log_level level)
{
    atomic_store(&level_max, (int)level);
}

void log_set_program(const char *name)
{
    atomic_store(&program, name);
}

/* Texts from guests and peers may hold anything: a line must not be able to fake another. */
static void make_one_line(char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
}

void log_event(enum log_level level, const char *event, const char *fields, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[LINE_BYTES_MAX];

    if ((int)level > atomic_load(&level_max))
        return;
    int len =
        snprintf(line, sizeof(line), "%s: %s: %s ", atomic_load(&program), names[level], event);
    size_t used = (size_t)len < sizeof(line) ? (size_t)len : sizeof(line) - 1;

    va_list args;
    va_start(args, fields);
    (void)vsnprintf(line + used, sizeof(line) - used, fields, args);
    va_end(args);

    used = strnlen(line, sizeof(line) - 2);
    make_one_line(line, used);
    line[used] = '\n';
    /* Nowhere to report that the log can not be written. */
    ssize_t written = write(STDERR_FILENO, line, used + 1);
    (void)written;
}

void log_err(enum log_level level, const char *event, struct err *err)
{
    log_event(level, event, "cause=\"%s\"", err_message(err));
    err_free(err);
}

bool log_rate_allows(struct log_rate *rate)
{
    uint64_t second = clock_monotonic_ns() / NS_PER_S;

    /* Threads may race here; a line too many or too few does no harm. */
    if (__atomic_exchange_n(&rate->second, second, __ATOMIC_RELAXED) != second)
        __atomic_store_n(&rate->count, 0, __ATOMIC_RELAXED);
    return __atomic_add_fetch(&rate->count, 1, __ATOMIC_RELAXED) <= RATE_PER_SECOND;
}
