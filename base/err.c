/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.c - see err.h.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 1024

struct err {
    enum err_kind kind;
    int errnum; /* 0: none */
    char message[MESSAGE_MAX];
};

/* Returned when there is no memory to describe an error; never freed. */
static struct err no_memory = {ERR_NO_MEMORY, 0, "out of memory"};

static struct err *err_vnew(enum err_kind kind, const char *fmt, va_list args)
    __attribute__((format(printf, 2, 0)));

static struct err *err_vnew(enum err_kind kind, const char *fmt, va_list args)
{
    struct err *err = malloc(sizeof(*err));
    if (err == NULL)
        return &no_memory;

    err->kind = kind;
    err->errnum = 0;
    (void)vsnprintf(err->message, sizeof(err->message), fmt, args);
    return err;
}

struct err *err_new(enum err_kind kind, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    struct err *err = err_vnew(kind, fmt, args);
    va_end(args);
    return err;
}

struct err *err_errno(int errnum, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    struct err *err = err_vnew(ERR_IO, fmt, args);
    va_end(args);

    if (err == &no_memory)
        return err;
    size_t used = strlen(err->message);
    (void)snprintf(err->message + used, sizeof(err->message) - used, ": %s", strerror(errnum));
    err->errnum = errnum;
    return err;
}

struct err *err_wrap(struct err *err, const char *fmt, ...)
{
    char context[MESSAGE_MAX / 2];

    if (err == NULL || err == &no_memory)
        return err;

    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(context, sizeof(context), fmt, args);
    va_end(args);

    char inner[MESSAGE_MAX];
    memcpy(inner, err->message, sizeof(inner));
    int written = snprintf(err->message, sizeof(err->message), "%s: ", context);
    size_t used = (size_t)written;
    (void)snprintf(err->message + used, sizeof(err->message) - used, "%s", inner);
    return err;
}

enum err_kind err_kind(const struct err *err)
{
    return err->kind;
}

int err_errnum(const struct err *err)
{
    return err->errnum;
}

const char *err_kind_name(enum err_kind kind)
{
    static const char *const names[] = {
        [ERR_INVALID] = "invalid", [ERR_INCOMPATIBLE] = "incompatible",
        [ERR_IO] = "io",           [ERR_NO_MEMORY] = "no-memory",
        [ERR_STATE] = "state",     [ERR_NOT_FOUND] = "not-found",
        [ERR_TIMEOUT] = "timeout", [ERR_CANCELLED] = "cancelled",
        [ERR_DENIED] = "denied",
    };

    return names[kind];
}

const char *err_message(const struct err *err)
{
    return err->message;
}

void err_free(struct err *err)
{
    if (err != &no_memory)
        free(err);
}
