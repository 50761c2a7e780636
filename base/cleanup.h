/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.h - release at the end of scope, and hand over on success.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

static inline void cleanup_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_free(void *ptr)
{
    void *memory;

    memcpy(&memory, ptr, sizeof(memory)); /* ptr points to a pointer of any type */
    free(memory);
}

/* Defines cleanup_NAME, which calls a destructor that accepts NULL: `void destroy(TYPE *)`. */
#define DEFINE_CLEANUP(name, type, destroy)                                                        \
    static inline void cleanup_##name(type **obj)                                                  \
    {                                                                                              \
        destroy(*obj);                                                                             \
    }

/* Moves the value out, so that the end of the scope releases nothing. */
#define TAKE(var, empty)                                                                           \
    __extension__({                                                                                \
        __typeof__(var) taken_ = (var);                                                            \
        (var) = (empty);                                                                           \
        taken_;                                                                                    \
    })
#define TAKE_PTR(var) TAKE(var, NULL)
#define TAKE_FD(var)  TAKE(var, -1)

#endif
