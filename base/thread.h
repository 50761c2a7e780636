/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thread.h - threads with roles. docs/threads.md says what each role owns and may do.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <stdbool.h>

#include "base/err.h"

#define THREAD_ROLES(X)                                                                            \
    X(LOOP, "loop")       /* the main thread: config, control, slow paths of devices */            \
    X(VCPU, "vcpu")       /* runs one virtual CPU */                                               \
    X(DISK, "disk")       /* executes requests of one disk */                                      \
    X(NET, "net")         /* moves packets of one network device */                                \
    X(LOADER, "loader")   /* fills guest memory from a snapshot, on demand and ahead of it */      \
    X(SENDER, "sender")   /* one migration data channel, source side */                            \
    X(RECEIVER, "recv")   /* one migration data channel, target side */                            \
    X(SESSION, "session") /* one migration session: its control connection, its phases */          \
    X(WORKER, "worker")   /* takes part in a long piece of work of a tool */                       \
    X(TEST, "test")

enum thread_role {
#define X(name, text) ROLE_##name,
    THREAD_ROLES(X)
#undef X
};

struct thread;

/* Starts `main(argument)`, named "role index". All signals are blocked in it but the kick signal of
 * a vcpu, which its main unblocks. The caller joins with thread_join, which frees. */
ERR_RESULT thread_create(enum thread_role role, unsigned index, void (*main)(void *argument),
                         void *argument, struct thread **out_thread);
void thread_join(struct thread *thread); /* accepts NULL */

/* Sends a signal to the thread; it must not have been joined. */
void thread_kick(struct thread *thread, int signal);

/* Declares the calling thread to be the loop; done once by each main(). */
void thread_become(enum thread_role role);
bool thread_is(enum thread_role role);

#define ASSERT_THREAD(role) ASSERT(thread_is(role))

#endif
