/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_worker.h - one thread beside the loop, for what would keep the loop waiting.
 *
 * Jobs run one after the other, in the order in which they were given; the loop hears of the end of
 * each, in the same order. Thread: loop, but for a job's run.
 */
#ifndef VMM_MACHINE_LOOP_WORKER_H
#define VMM_MACHINE_LOOP_WORKER_H

#include "base/err.h"

struct event_loop;
struct loop_worker;

/* Embedded in something of its giver's. */
struct loop_job {
    struct err *(*run)(struct loop_job *job); /* Thread: worker; may block */
    /* Thread: loop. Takes the error over; the job is the giver's again. */
    void (*done)(struct loop_job *job, struct err *err);
    struct loop_job *next; /* the worker's, and what follows */
    struct err *err;
};

ERR_RESULT loop_worker_create(struct event_loop *loop, struct loop_worker **out_worker);
/* What runs comes to its end, what waits is not begun. Of all jobs that the loop has not heard of
 * the end it hears it here: ERR_CANCELLED, unless they failed. Accepts NULL. */
void loop_worker_destroy(struct loop_worker *worker);

void loop_worker_give(struct loop_worker *worker, struct loop_job *job);
/* Returns when all jobs that were given have run; their done is still called by the loop, later.
 * Not from a job. Accepts NULL. */
void loop_worker_settle(struct loop_worker *worker);

#endif
