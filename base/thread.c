/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thread.c - see thread.h.
 */
#include "base/thread.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

struct thread {
    pthread_t id;
    enum thread_role role;
    unsigned index;
    void (*main)(void *argument);
    void *argument;
};

static const char *const role_names[] = {
#define X(name, text) [ROLE_##name] = (text),
    THREAD_ROLES(X)
#undef X
};

/* A thread that nobody declared counts as the loop: main() of every tool is one. */
static _Thread_local enum thread_role current_role = ROLE_LOOP;

static void *thread_start(void *pointer)
{
    struct thread *thread = pointer;
    char name[16]; /* the kernel's limit, with the terminator */

    (void)snprintf(name, sizeof(name), "%s %u", role_names[thread->role], thread->index);
    (void)pthread_setname_np(pthread_self(), name);
    current_role = thread->role;
    thread->main(thread->argument);
    return NULL;
}

struct err *thread_create(enum thread_role role, unsigned index, void (*main)(void *argument),
                          void *argument, struct thread **out_thread)
{
    struct thread *thread = calloc(1, sizeof(*thread));
    if (thread == NULL)
        return err_new(ERR_NO_MEMORY, "thread '%s %u'", role_names[role], index);
    *thread = (struct thread){.role = role, .index = index, .main = main, .argument = argument};

    /* The new thread inherits the mask, so signals can not reach it before it is set. */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread->id, NULL, thread_start, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        free(thread);
        return err_errno(error, "start thread '%s %u'", role_names[role], index);
    }

    *out_thread = thread;
    return NULL;
}

void thread_join(struct thread *thread)
{
    if (thread == NULL)
        return;
    int error = pthread_join(thread->id, NULL);
    ASSERT(error == 0);
    free(thread);
}

void thread_kick(struct thread *thread, int signal)
{
    /* ESRCH means that it has ended, which is what a kick wants to bring about. */
    (void)pthread_kill(thread->id, signal);
}

void thread_become(enum thread_role role)
{
    current_role = role;
}

bool thread_is(enum thread_role role)
{
    return current_role == role;
}
