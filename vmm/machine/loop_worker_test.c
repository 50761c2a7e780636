/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>

#include "base/checked_math.h"
#include "base/event_loop.h"
#include "base/lock.h"
#include "base/unit_test.h"
#include "vmm/machine/loop_worker.h"

#define JOBS 4

/* What happened to the jobs, in order. */
struct trace {
    struct lock lock;
    struct lock_condition changed;
    bool is_open GUARDED_BY(&lock); /* jobs wait for it */
    unsigned ran[JOBS] GUARDED_BY(&lock);
    unsigned ran_count GUARDED_BY(&lock);
    pthread_t ran_by GUARDED_BY(&lock);
    unsigned done[JOBS];
    unsigned done_count;
    enum err_kind kinds[JOBS];
    bool has_failed[JOBS];
    pthread_t done_by;
};

struct test_job {
    struct loop_job job;
    unsigned number;
    bool fails;
    struct trace *trace;
};

static struct err *run(struct loop_job *base)
{
    struct test_job *job = CONTAINER_OF(base, struct test_job, job);
    struct trace *trace = job->trace;

    lock_acquire(&trace->lock);
    trace->ran[trace->ran_count++] = job->number;
    trace->ran_by = pthread_self();
    lock_condition_broadcast(&trace->changed);
    while (!trace->is_open)
        lock_condition_wait(&trace->changed, &trace->lock);
    lock_release(&trace->lock);
    return job->fails ? err_new(ERR_IO, "as told") : NULL;
}

static void done(struct loop_job *base, struct err *err)
{
    struct test_job *job = CONTAINER_OF(base, struct test_job, job);
    struct trace *trace = job->trace;

    trace->has_failed[job->number] = err != NULL;
    if (err != NULL)
        trace->kinds[job->number] = err_kind(err);
    err_free(err);
    trace->done[trace->done_count++] = job->number;
    trace->done_by = pthread_self();
}

struct fixture {
    struct event_loop *loop;
    struct loop_worker *worker;
    struct trace trace;
    struct test_job jobs[JOBS];
};

static void set_up(struct fixture *fixture, bool is_open)
{
    *fixture = (struct fixture){.loop = NULL};
    lock_init(&fixture->trace.lock, LOCK_TEST);
    lock_condition_init(&fixture->trace.changed);
    lock_acquire(&fixture->trace.lock);
    fixture->trace.is_open = is_open;
    lock_release(&fixture->trace.lock);
    for (unsigned i = 0; i < JOBS; i++)
        fixture->jobs[i] = (struct test_job){
            .job = {.run = run, .done = done}, .number = i, .trace = &fixture->trace};
    ASSERT_OK(event_loop_create(&fixture->loop));
    ASSERT_OK(loop_worker_create(fixture->loop, &fixture->worker));
}

static void tear_down(struct fixture *fixture)
{
    loop_worker_destroy(fixture->worker);
    event_loop_destroy(fixture->loop);
    lock_condition_finish(&fixture->trace.changed);
    lock_finish(&fixture->trace.lock);
}

static void give_all(struct fixture *fixture)
{
    for (unsigned i = 0; i < JOBS; i++)
        loop_worker_give(fixture->worker, &fixture->jobs[i].job);
}

static void wait_until_one_runs(struct trace *trace)
{
    lock_acquire(&trace->lock);
    while (trace->ran_count == 0)
        lock_condition_wait(&trace->changed, &trace->lock);
    lock_release(&trace->lock);
}

static void open_gate(struct trace *trace)
{
    lock_acquire(&trace->lock);
    trace->is_open = true;
    lock_condition_broadcast(&trace->changed);
    lock_release(&trace->lock);
}

TEST(jobs_run_elsewhere_in_order_and_the_loop_hears_of_each)
{
    struct fixture fixture;
    set_up(&fixture, true);
    fixture.jobs[2].fails = true;

    give_all(&fixture);
    while (fixture.trace.done_count < JOBS)
        ASSERT_OK(event_loop_turn(fixture.loop, -1));

    lock_acquire(&fixture.trace.lock);
    for (unsigned i = 0; i < JOBS; i++) {
        assert_int_equal(fixture.trace.ran[i], i);
        assert_int_equal(fixture.trace.done[i], i);
        assert_int_equal(fixture.trace.has_failed[i], i == 2);
    }
    assert_false(pthread_equal(fixture.trace.ran_by, pthread_self()));
    lock_release(&fixture.trace.lock);
    assert_int_equal(fixture.trace.kinds[2], ERR_IO);
    assert_true(pthread_equal(fixture.trace.done_by, pthread_self()));
    tear_down(&fixture);
}

TEST(the_loop_goes_on_while_a_job_runs)
{
    struct fixture fixture;
    set_up(&fixture, false);

    loop_worker_give(fixture.worker, &fixture.jobs[0].job);
    wait_until_one_runs(&fixture.trace);
    ASSERT_OK(event_loop_turn(fixture.loop, 0));
    assert_int_equal(fixture.trace.done_count, 0);

    open_gate(&fixture.trace);
    while (fixture.trace.done_count == 0)
        ASSERT_OK(event_loop_turn(fixture.loop, -1));
    tear_down(&fixture);
}

TEST(settling_waits_for_all_jobs_and_leaves_their_ends_to_the_loop)
{
    struct fixture fixture;
    set_up(&fixture, true);

    loop_worker_settle(fixture.worker);
    give_all(&fixture);
    loop_worker_settle(fixture.worker);

    lock_acquire(&fixture.trace.lock);
    assert_int_equal(fixture.trace.ran_count, JOBS);
    lock_release(&fixture.trace.lock);
    assert_int_equal(fixture.trace.done_count, 0);
    ASSERT_OK(event_loop_turn(fixture.loop, 0));
    assert_int_equal(fixture.trace.done_count, JOBS);
    tear_down(&fixture);
}

TEST(an_end_lets_what_runs_finish_and_cancels_the_rest)
{
    struct fixture fixture;
    set_up(&fixture, false);
    fixture.jobs[0].fails = true;

    give_all(&fixture);
    wait_until_one_runs(&fixture.trace);
    open_gate(&fixture.trace);
    tear_down(&fixture);

    assert_int_equal(fixture.trace.done_count, JOBS);
    assert_int_equal(fixture.trace.kinds[0], ERR_IO);
    for (unsigned i = 1; i < JOBS; i++) {
        assert_true(fixture.trace.has_failed[i]);
        assert_int_equal(fixture.trace.kinds[i], ERR_CANCELLED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_run_elsewhere_in_order_and_the_loop_hears_of_each),
        cmocka_unit_test(the_loop_goes_on_while_a_job_runs),
        cmocka_unit_test(settling_waits_for_all_jobs_and_leaves_their_ends_to_the_loop),
        cmocka_unit_test(an_end_lets_what_runs_finish_and_cancels_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
