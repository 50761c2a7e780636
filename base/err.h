/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - an error value that collects context on its way up.
 *
 * A function that can fail returns `struct err *`: NULL is success. Results come back through
 * parameters named out_*, which are written only on success.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

enum err_kind {
    ERR_INVALID,      /* the guest, a peer or a file sent something malformed */
    ERR_INCOMPATIBLE, /* well formed, but a version or feature we do not have */
    ERR_IO,           /* the host refused; the message ends with its reason */
    ERR_NO_MEMORY,
    ERR_STATE,     /* not possible now: the machine, session or file is in another state */
    ERR_NOT_FOUND, /* no machine, snapshot, disk or host of that name */
    ERR_TIMEOUT,   /* nobody answered in time */
    ERR_CANCELLED, /* somebody asked for it */
    ERR_DENIED,    /* certificate, lock or permission */
};

struct err;

/* Must be used: a dropped error is a bug. */
#define ERR_RESULT __attribute__((warn_unused_result)) struct err *

ERR_RESULT err_new(enum err_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), returns_nonnull));
ERR_RESULT err_errno(int errnum, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), returns_nonnull));

/* Prefixes "what we were doing: " and returns the same error; NULL stays NULL, so that
 * `return err_wrap(step(), "...")` does for both. */
ERR_RESULT err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

enum err_kind err_kind(const struct err *err);
/* The host's reason, of an error that began with err_errno; 0 of others. */
int err_errnum(const struct err *err);
const char *err_message(const struct err *err);

/* The kind's name as it appears on control sockets and in JSON: "invalid", "io", ... */
const char *err_kind_name(enum err_kind kind);
void err_free(struct err *err); /* accepts NULL */

/* The only macro in the tree that hides a return. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        struct err *try_err_ = (expr);                                                             \
        if (try_err_ != NULL)                                                                      \
            return try_err_;                                                                       \
    } while (0)

#endif
