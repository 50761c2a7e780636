/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_senders.c - see page_senders.h. Tested by: move_test.c.
 *
 * Work goes to a sender in jobs of up to 64 blocks, which circulate between two queues. A sender
 * that has failed goes on taking jobs, without sending, so that nobody waits for it.
 */
#include "migration/page_senders.h"

#include <stdlib.h>

#include "base/bounded_queue.h"
#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/thread.h"
#include "migration/compression_policy.h"

#define JOB_BLOCKS      64u
#define JOBS_PER_SENDER 3u

/* For the target to take in what is on its way; a link that is lost is noticed much earlier. */
#define ROUND_TAKEN_MS_MAX 120000u

enum job_kind { JOB_PAGES, JOB_FLUSH, JOB_END };

struct job {
    enum job_kind kind;
    size_t count;
    struct {
        uint64_t block;
        uint64_t bits;
    } entries[JOB_BLOCKS];
};

struct sender {
    struct page_senders *senders;
    struct frame_stream *stream;  /* owned */
    struct page_encoder *encoder; /* owned */
    struct bounded_queue *full;   /* owned; jobs to do */
    struct bounded_queue *empty;  /* owned; jobs to fill */
    struct thread *thread;        /* owned */
    struct job jobs[JOBS_PER_SENDER];
    struct job *filling; /* by page_senders_add; may be NULL */
    struct compression_policy policy;
    struct compression_window window;
    uint64_t window_started_ns;
    uint64_t window_blocked_ns; /* the channel's counter when the window began */
    uint64_t limit_ns;          /* when the bandwidth limit lets the next block go */
    uint64_t batches;
};

struct page_senders {
    struct page_senders_config config;
    struct sender *senders; /* owned */
    size_t count;

    struct lock lock;
    struct lock_condition changed;
    struct err *failure GUARDED_BY(&lock);
    size_t acknowledged GUARDED_BY(&lock); /* flush and end jobs done */
    struct page_counts counts[MIGRATION_CHANNELS_MAX] GUARDED_BY(&lock);
    bool is_interrupted GUARDED_BY(&lock);
};

static bool has_failed(struct page_senders *senders)
{
    lock_acquire(&senders->lock);
    bool failed = senders->failure != NULL || senders->is_interrupted;
    lock_release(&senders->lock);
    return failed;
}

static void note_failure(struct page_senders *senders, struct err *err)
{
    lock_acquire(&senders->lock);
    bool is_first = senders->failure == NULL;
    if (is_first)
        senders->failure = err;
    lock_condition_broadcast(&senders->changed);
    lock_release(&senders->lock);
    if (!is_first)
        err_free(err);
    else if (senders->config.failed != NULL)
        senders->config.failed(senders->config.context);
}

/* Holds back so that all connections together stay below the limit. */
static void limit_rate(struct sender *sender, size_t bytes)
{
    struct page_senders *senders = sender->senders;

    if (senders->config.bytes_per_second == 0)
        return;
    uint64_t share = MAX(senders->config.bytes_per_second / senders->count, (uint64_t)1);
    uint64_t now_ns = clock_monotonic_ns();

    sender->limit_ns = MAX(sender->limit_ns, now_ns) + bytes * NS_PER_S / share;
    if (sender->limit_ns - now_ns < 2u * NS_PER_MS)
        return;
    lock_acquire(&senders->lock);
    while (!senders->is_interrupted &&
           lock_condition_wait_until(&senders->changed, &senders->lock, sender->limit_ns))
        continue;
    lock_release(&senders->lock);
}

static void update_policy(struct sender *sender, uint64_t page_bytes)
{
    if (sender->window_started_ns == 0)
        sender->window_started_ns = clock_monotonic_ns();
    sender->window.page_bytes += page_bytes;
    if (sender->window.page_bytes < COMPRESSION_WINDOW_BYTES)
        return;

    uint64_t now_ns = clock_monotonic_ns();
    uint64_t blocked_ns = channel_blocked_ns(frame_stream_channel(sender->stream));
    sender->window.elapsed_ns = now_ns - sender->window_started_ns;
    sender->window.blocked_ns = blocked_ns - sender->window_blocked_ns;
    if (sender->senders->config.bytes_per_second != 0)
        sender->window.blocked_ns = sender->window.elapsed_ns; /* a limit is a slow link */
    compression_policy_window(&sender->policy, sender->window);
    sender->window = (struct compression_window){0};
    sender->window_started_ns = now_ns;
    sender->window_blocked_ns = blocked_ns;
}

static struct err *send_block(struct sender *sender, uint64_t block, uint64_t bits)
{
    Ferry__MigrationFrame frame;
    const uint8_t *memory = sender->senders->config.memory;
    uint64_t first = block * PAGE_BLOCK_PAGES;
    struct page_counts before = page_encoder_counts(sender->encoder);
    size_t payload_bytes = 0;

    page_encoder_encode(sender->encoder, memory + first * PAGE_BYTES, first, bits,
                        sender->policy.is_on);
    const uint8_t *payload = page_encoder_payload(sender->encoder, &payload_bytes);
    FRAME_BODY(&frame, PAGES, pages, (Ferry__MigrationPages *)page_encoder_pages(sender->encoder));
    limit_rate(sender, payload_bytes);
    TRY(frame_stream_send(sender->stream, &frame, payload, payload_bytes));
    sender->batches++;

    struct page_counts after = page_encoder_counts(sender->encoder);
    update_policy(sender,
                  (after.raw_pages + after.lz4_pages - before.raw_pages - before.lz4_pages) *
                      PAGE_BYTES);
    return NULL;
}

static struct err *send_end(struct sender *sender, enum job_kind kind)
{
    Ferry__MigrationEnd end = FERRY__MIGRATION_END__INIT;
    Ferry__MigrationFrame frame;

    end.batches = sender->batches;
    end.goes_on = kind == JOB_FLUSH;
    FRAME_BODY(&frame, END, end, &end);
    TRY(frame_stream_send(sender->stream, &frame, NULL, 0));
    return channel_flush(frame_stream_channel(sender->stream));
}

/* What the kernels hold at both ends is then in the target's memory: it can be a great deal more
 * than the pages that are left, and a guest that stopped meanwhile would wait for it. */
static struct err *wait_until_taken(struct sender *sender)
{
    Ferry__MigrationFrame *frame = NULL;

    TRY(frame_stream_expect(sender->stream, FERRY__MIGRATION_FRAME__BODY_END, ROUND_TAKEN_MS_MAX,
                            &frame));
    ferry__migration_frame__free_unpacked(frame, NULL);
    return NULL;
}

static struct err *do_job(struct sender *sender, const struct job *job)
{
    for (size_t i = 0; i < job->count; i++)
        TRY(send_block(sender, job->entries[i].block, job->entries[i].bits));
    if (job->kind == JOB_PAGES)
        return NULL;
    /* Time between jobs is not the link's doing. */
    sender->window = (struct compression_window){0};
    sender->window_started_ns = 0;
    TRY(send_end(sender, job->kind));
    return job->kind == JOB_FLUSH ? wait_until_taken(sender) : NULL;
}

static void sender_main(void *argument)
{
    struct sender *sender = argument;
    struct page_senders *senders = sender->senders;
    size_t index = (size_t)(sender - senders->senders);

    for (struct job *job = bounded_queue_pop(sender->full); job != NULL;
         job = bounded_queue_pop(sender->full)) {
        if (!has_failed(senders)) {
            struct err *err = do_job(sender, job);
            if (err != NULL)
                note_failure(senders, err);
        }
        lock_acquire(&senders->lock);
        senders->counts[index] = page_encoder_counts(sender->encoder);
        if (job->kind != JOB_PAGES) {
            senders->acknowledged++;
            lock_condition_broadcast(&senders->changed);
        }
        lock_release(&senders->lock);
        (void)bounded_queue_push(sender->empty, job);
    }
}

static struct err *sender_start(struct page_senders *senders, size_t index)
{
    struct sender *sender = &senders->senders[index];

    sender->senders = senders;
    TRY(page_encoder_create(&sender->encoder));
    TRY(bounded_queue_create(JOBS_PER_SENDER, &sender->full));
    TRY(bounded_queue_create(JOBS_PER_SENDER, &sender->empty));
    for (size_t i = 0; i < JOBS_PER_SENDER; i++)
        (void)bounded_queue_push(sender->empty, &sender->jobs[i]);
    return thread_create(ROLE_SENDER, (unsigned)index, sender_main, sender, &sender->thread);
}

struct err *page_senders_create(const struct page_senders_config *config,
                                struct page_senders **out_senders)
{
    struct page_senders *senders = calloc(1, sizeof(*senders));
    struct sender *all = calloc(config->stream_count, sizeof(*all));

    if (senders == NULL || all == NULL) {
        free(senders);
        free(all);
        for (size_t i = 0; i < config->stream_count; i++)
            frame_stream_destroy(config->streams[i]);
        return err_new(ERR_NO_MEMORY, "page senders");
    }
    senders->config = *config;
    senders->config.streams = NULL;
    senders->senders = all;
    senders->count = config->stream_count;
    lock_init(&senders->lock, LOCK_MIGRATION_PROGRESS);
    lock_condition_init(&senders->changed);
    for (size_t i = 0; i < senders->count; i++)
        all[i].stream = config->streams[i];
    for (size_t i = 0; i < senders->count; i++) {
        struct err *err = sender_start(senders, i);
        if (err != NULL) {
            page_senders_destroy(senders);
            return err;
        }
    }
    *out_senders = senders;
    return NULL;
}

void page_senders_destroy(struct page_senders *senders) LOCK_UNCHECKED
{
    if (senders == NULL)
        return;
    page_senders_interrupt(senders);
    for (size_t i = 0; i < senders->count; i++)
        if (senders->senders[i].full != NULL)
            bounded_queue_close(senders->senders[i].full);
    for (size_t i = 0; i < senders->count; i++) {
        struct sender *sender = &senders->senders[i];

        thread_join(sender->thread);
        bounded_queue_destroy(sender->full);
        bounded_queue_destroy(sender->empty);
        page_encoder_destroy(sender->encoder);
        frame_stream_destroy(sender->stream);
    }
    err_free(senders->failure);
    lock_condition_finish(&senders->changed);
    lock_finish(&senders->lock);
    free(senders->senders);
    free(senders);
}

/* The job that is being filled for a sender, empty when there was none. */
static struct job *job_of(struct sender *sender)
{
    if (sender->filling == NULL) {
        sender->filling = bounded_queue_pop(sender->empty);
        sender->filling->kind = JOB_PAGES;
        sender->filling->count = 0;
    }
    return sender->filling;
}

void page_senders_add(struct page_senders *senders, uint64_t block, uint64_t bits)
{
    struct sender *sender = &senders->senders[block % senders->count];
    struct job *job = job_of(sender);

    job->entries[job->count].block = block;
    job->entries[job->count].bits = bits;
    job->count++;
    if (job->count == JOB_BLOCKS)
        (void)bounded_queue_push(sender->full, TAKE_PTR(sender->filling));
}

static struct err *finish(struct page_senders *senders, enum job_kind kind)
{
    lock_acquire(&senders->lock);
    senders->acknowledged = 0;
    lock_release(&senders->lock);
    for (size_t i = 0; i < senders->count; i++) {
        job_of(&senders->senders[i])->kind = kind;
        (void)bounded_queue_push(senders->senders[i].full, TAKE_PTR(senders->senders[i].filling));
    }
    lock_acquire(&senders->lock);
    while (senders->acknowledged < senders->count)
        lock_condition_wait(&senders->changed, &senders->lock);
    bool is_interrupted = senders->is_interrupted;
    lock_release(&senders->lock);

    struct err *err = page_senders_failure(senders);
    if (err == NULL && is_interrupted)
        err = err_new(ERR_CANCELLED, "sending pages was given up");
    return err;
}

struct err *page_senders_flush(struct page_senders *senders)
{
    return finish(senders, JOB_FLUSH);
}

struct err *page_senders_end(struct page_senders *senders)
{
    return finish(senders, JOB_END);
}

void page_senders_interrupt(struct page_senders *senders)
{
    lock_acquire(&senders->lock);
    senders->is_interrupted = true;
    lock_condition_broadcast(&senders->changed);
    lock_release(&senders->lock);
    for (size_t i = 0; i < senders->count; i++)
        channel_interrupt(frame_stream_channel(senders->senders[i].stream));
}

struct page_counts page_senders_counts(struct page_senders *senders)
{
    struct page_counts sum = {0};

    lock_acquire(&senders->lock);
    for (size_t i = 0; i < senders->count; i++) {
        sum.zero_pages += senders->counts[i].zero_pages;
        sum.raw_pages += senders->counts[i].raw_pages;
        sum.lz4_pages += senders->counts[i].lz4_pages;
        sum.payload_bytes += senders->counts[i].payload_bytes;
    }
    lock_release(&senders->lock);
    return sum;
}

struct err *page_senders_failure(struct page_senders *senders)
{
    lock_acquire(&senders->lock);
    struct err *err = senders->failure == NULL ? NULL
                                               : err_new(err_kind(senders->failure), "%s",
                                                         err_message(senders->failure));
    lock_release(&senders->lock);
    return err;
}
