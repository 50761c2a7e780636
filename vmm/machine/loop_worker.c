/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_worker.c - see loop_worker.h.
 */
#include "vmm/machine/loop_worker.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/lock.h"
#include "base/thread.h"
#include "vmm/machine/loop_wake.h"

struct job_list {
    struct loop_job *first;
    struct loop_job **end; /* NULL: empty */
};

struct loop_worker {
    struct loop_wake *wake; /* owned: jobs have run */
    struct thread *thread;  /* owned */

    struct lock lock;
    struct lock_condition changed;
    struct job_list given GUARDED_BY(&lock);
    struct job_list ended GUARDED_BY(&lock);
    bool is_at_work GUARDED_BY(&lock);
    bool is_ending GUARDED_BY(&lock);
};

static void put(struct job_list *list, struct loop_job *job)
{
    job->next = NULL;
    *(list->end == NULL ? &list->first : list->end) = job;
    list->end = &job->next;
}

static struct loop_job *take(struct job_list *list)
{
    struct loop_job *job = list->first;

    if (job == NULL)
        return NULL;
    list->first = job->next;
    if (list->first == NULL)
        list->end = NULL;
    return job;
}

/* NULL: there will be no more. */
static struct loop_job *wait_for_job(struct loop_worker *worker)
{
    lock_acquire(&worker->lock);
    while (worker->given.first == NULL && !worker->is_ending)
        lock_condition_wait(&worker->changed, &worker->lock);
    struct loop_job *job = worker->is_ending ? NULL : take(&worker->given);
    worker->is_at_work = job != NULL;
    lock_release(&worker->lock);
    return job;
}

static void worker_main(void *argument)
{
    struct loop_worker *worker = argument;

    for (struct loop_job *job = wait_for_job(worker); job != NULL; job = wait_for_job(worker)) {
        job->err = job->run(job);
        lock_acquire(&worker->lock);
        put(&worker->ended, job);
        worker->is_at_work = false;
        lock_condition_broadcast(&worker->changed);
        lock_release(&worker->lock);
        loop_wake(worker->wake);
    }
}

static struct loop_job *take_ended(struct loop_worker *worker)
{
    lock_acquire(&worker->lock);
    struct loop_job *job = take(&worker->ended);
    lock_release(&worker->lock);
    return job;
}

/* A done may give more jobs, settle, or do anything else but destroy the worker. */
static void on_ended(void *context)
{
    struct loop_worker *worker = context;

    for (struct loop_job *job = take_ended(worker); job != NULL; job = take_ended(worker))
        job->done(job, TAKE_PTR(job->err));
}

struct err *loop_worker_create(struct event_loop *loop, struct loop_worker **out_worker)
{
    struct loop_worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL)
        return err_new(ERR_NO_MEMORY, "worker beside the loop");
    lock_init(&worker->lock, LOCK_LOOP_WORKER);
    lock_condition_init(&worker->changed);

    struct err *err = loop_wake_create(loop, on_ended, worker, &worker->wake);
    if (err == NULL)
        err = thread_create(ROLE_WORKER, 0, worker_main, worker, &worker->thread);
    if (err != NULL) {
        loop_worker_destroy(worker);
        return err;
    }
    *out_worker = worker;
    return NULL;
}

/* No thread is left. */
static void cancel_all(struct job_list *list)
{
    for (struct loop_job *job = take(list); job != NULL; job = take(list)) {
        struct err *err = TAKE_PTR(job->err);
        job->done(job, err != NULL ? err : err_new(ERR_CANCELLED, "the machine ends"));
    }
}

LOCK_UNCHECKED void loop_worker_destroy(struct loop_worker *worker)
{
    if (worker == NULL)
        return;
    lock_acquire(&worker->lock);
    worker->is_ending = true;
    lock_condition_broadcast(&worker->changed);
    lock_release(&worker->lock);
    thread_join(worker->thread);
    cancel_all(&worker->ended);
    cancel_all(&worker->given);
    loop_wake_destroy(worker->wake);
    lock_condition_finish(&worker->changed);
    lock_finish(&worker->lock);
    free(worker);
}

void loop_worker_give(struct loop_worker *worker, struct loop_job *job)
{
    job->err = NULL;
    lock_acquire(&worker->lock);
    put(&worker->given, job);
    lock_condition_broadcast(&worker->changed);
    lock_release(&worker->lock);
}

void loop_worker_settle(struct loop_worker *worker)
{
    if (worker == NULL)
        return;
    lock_acquire(&worker->lock);
    while (worker->given.first != NULL || worker->is_at_work)
        lock_condition_wait(&worker->changed, &worker->lock);
    lock_release(&worker->lock);
}
