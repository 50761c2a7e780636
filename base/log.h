/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - one line an event, on stderr, with key=value fields.
 *
 * Log at the edge, once: mains, the loop's top, thread mains. A function that returns an err does
 * not log it. Thread: any.
 *
 *     log_info("machine started", "name=%s vcpus=%u", name, vcpus);
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum log_level {
    LOG_ERROR,   /* an operation failed */
    LOG_WARNING, /* degraded, but going on */
    LOG_INFO,    /* life cycle */
    LOG_DEBUG,
};

void log_set_level(enum log_level level); /* LOG_INFO at start */
void log_set_program(const char *name);   /* prefix of each line; the string must stay */

void log_event(enum log_level level, const char *event, const char *fields, ...)
    __attribute__((format(printf, 3, 4)));
/* Frees the error. */
void log_err(enum log_level level, const char *event, struct err *err);

#define log_error(...)   log_event(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_event(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_event(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_event(LOG_DEBUG, __VA_ARGS__)

/* For what a guest can trigger: at most ten lines a second from each place; the rest is dropped. */
#define log_guest(event, ...)                                                                      \
    do {                                                                                           \
        static struct log_rate log_rate_;                                                          \
        if (log_rate_allows(&log_rate_))                                                           \
            log_event(LOG_WARNING, event, __VA_ARGS__);                                            \
    } while (0)

struct log_rate {
    uint64_t second;
    uint32_t count;
};

bool log_rate_allows(struct log_rate *rate);

#endif
