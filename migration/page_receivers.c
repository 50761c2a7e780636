/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_receivers.c - see page_receivers.h. Tested by: move_test.c.
 */
#include "migration/page_receivers.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"
#include "migration/dialer.h"
#include "migration/frame_stream.h"
#include "migration/openssl.h"
#include "proto/page_decoder.h"

/* Connections that turn out not to be ours also take a place, until the session ends. */
#define RECEIVERS_MAX ((size_t)2 * MIGRATION_CHANNELS_MAX)

struct receiver {
    struct page_receivers *receivers;
    struct incoming *incoming;   /* owned */
    struct frame_stream *stream; /* owned; set under the lock, interrupted by others */
    struct thread *thread;       /* owned */
    uint64_t batches;
};

struct page_receivers {
    struct page_receivers_config config;
    uint64_t *touched; /* owned */

    struct lock lock;
    struct lock_condition changed;
    struct receiver receivers[RECEIVERS_MAX] GUARDED_BY(&lock);
    size_t count GUARDED_BY(&lock);
    bool is_claimed[MIGRATION_CHANNELS_MAX] GUARDED_BY(&lock);
    size_t ended GUARDED_BY(&lock);
    struct err *failure GUARDED_BY(&lock);
    bool is_interrupted GUARDED_BY(&lock);
};

struct err *page_receivers_create(const struct page_receivers_config *config,
                                  struct page_receivers **out_receivers)
{
    struct page_receivers *receivers = calloc(1, sizeof(*receivers));
    uint64_t *touched = calloc(bitmap_words(config->page_count), sizeof(uint64_t));

    if (receivers == NULL || touched == NULL) {
        free(receivers);
        free(touched);
        return err_new(ERR_NO_MEMORY, "page receivers");
    }
    receivers->config = *config;
    receivers->touched = touched;
    lock_init(&receivers->lock, LOCK_MIGRATION_PROGRESS);
    lock_condition_init(&receivers->changed);
    *out_receivers = receivers;
    return NULL;
}

static void note_failure(struct page_receivers *receivers, struct err *err)
{
    lock_acquire(&receivers->lock);
    bool is_first = receivers->failure == NULL && !receivers->is_interrupted;
    if (is_first)
        receivers->failure = err;
    lock_condition_broadcast(&receivers->changed);
    lock_release(&receivers->lock);
    if (!is_first)
        err_free(err);
    else
        receivers->config.failed(receivers->config.context);
}

/* Is this connection of the session, and which of its channels is it? */
static struct err *check_hello(struct page_receivers *receivers, const struct channel *channel,
                               const Ferry__MigrationHello *hello)
{
    const struct page_receivers_config *config = &receivers->config;
    struct session_id session;

    TRY(session_id_from_message(hello->session, &session));
    if (hello->purpose != FERRY__MIGRATION_PURPOSE__MIGRATION_DATA ||
        !session_id_equal(&session, &config->session) ||
        CRYPTO_memcmp(channel->fingerprint, config->fingerprint, sizeof(config->fingerprint)) != 0)
        return err_new(ERR_DENIED, "this connection is not of the session");
    if (hello->channel >= config->channel_count)
        return err_new(ERR_INVALID, "channel %u of %zu", hello->channel, config->channel_count);

    lock_acquire(&receivers->lock);
    bool is_taken = receivers->is_claimed[hello->channel];
    receivers->is_claimed[hello->channel] = true;
    lock_release(&receivers->lock);
    if (is_taken)
        return err_new(ERR_DENIED, "channel %u is connected already", hello->channel);
    return NULL;
}

static struct err *welcome(struct frame_stream *stream)
{
    Ferry__MigrationWelcome message = FERRY__MIGRATION_WELCOME__INIT;
    Ferry__MigrationFrame frame;

    message.protocol = MIGRATION_PROTOCOL;
    message.program = (char *)local_program();
    message.host = (char *)local_host_name();
    FRAME_BODY(&frame, WELCOME, welcome, &message);
    TRY(frame_stream_send(stream, &frame, NULL, 0));
    return channel_flush(frame_stream_channel(stream));
}

/* Opens the channel and lets it prove itself. An error here concerns this connection only. */
static struct err *admit(struct receiver *receiver)
{
    struct page_receivers *receivers = receiver->receivers;
    struct frame_stream *stream = NULL;
    struct channel *channel = NULL;
    Ferry__MigrationFrame *frame = NULL;

    TRY(receiver->incoming->ops->open(receiver->incoming, &channel));
    TRY(frame_stream_create(channel, &stream));
    lock_acquire(&receivers->lock);
    receiver->stream = stream;
    bool is_interrupted = receivers->is_interrupted;
    lock_release(&receivers->lock);
    if (is_interrupted)
        return err_new(ERR_CANCELLED, "the session has ended");

    TRY(frame_stream_expect(stream, FERRY__MIGRATION_FRAME__BODY_HELLO,
                            receivers->config.timeouts->hello_ms, &frame));
    struct err *err = check_hello(receivers, channel, frame->hello);
    ferry__migration_frame__free_unpacked(frame, NULL);
    if (err != NULL) {
        frame_stream_send_error(stream, err);
        return err;
    }
    return welcome(stream);
}

static struct err *receive_pages(struct receiver *receiver, struct page_decoder *decoder,
                                 const Ferry__MigrationPages *pages, size_t payload_bytes)
{
    uint8_t *to = NULL;
    size_t len = 0;

    TRY(page_decoder_begin(decoder, pages, payload_bytes));
    while (page_decoder_wants(decoder, &to, &len)) {
        TRY(frame_stream_read(receiver->stream, to, len));
        TRY(page_decoder_filled(decoder));
    }
    receiver->batches++;
    return page_decoder_end(decoder);
}

/* The end of a round goes back to the source, which waits for it. */
static struct err *receive_end(struct receiver *receiver, const Ferry__MigrationFrame *frame,
                               bool *out_ended)
{
    if (frame->end->batches != receiver->batches)
        return err_new(ERR_INVALID, "%ju of %ju batches arrived", (uintmax_t)receiver->batches,
                       (uintmax_t)frame->end->batches);
    *out_ended = !frame->end->goes_on;
    if (*out_ended)
        return NULL;
    TRY(frame_stream_send(receiver->stream, frame, NULL, 0));
    return channel_flush(frame_stream_channel(receiver->stream));
}

/* One frame; *out_ended: it was the last. */
static struct err *receive_frame(struct receiver *receiver, struct page_decoder *decoder,
                                 bool *out_ended)
{
    const struct frame_limits limits = {.body_bytes_max = MIGRATION_FRAME_HEAD_MAX,
                                        .payload_bytes_max = MIGRATION_BATCH_BYTES_MAX};
    Ferry__MigrationFrame *frame = NULL;
    size_t payload_bytes = 0;
    struct err *err = NULL;

    TRY(frame_stream_receive(receiver->stream, limits, &frame, &payload_bytes));
    if (frame->body_case == FERRY__MIGRATION_FRAME__BODY_PAGES)
        err = receive_pages(receiver, decoder, frame->pages, payload_bytes);
    else if (frame->body_case == FERRY__MIGRATION_FRAME__BODY_END)
        err = receive_end(receiver, frame, out_ended);
    else
        err = err_new(ERR_INVALID, "'%s' on a data connection", frame_name(frame->body_case));
    ferry__migration_frame__free_unpacked(frame, NULL);
    return err;
}

static struct err *receive_all(struct receiver *receiver)
{
    struct page_receivers *receivers = receiver->receivers;
    struct page_decoder *decoder = NULL;
    bool has_ended = false;
    struct err *err = page_decoder_create(receivers->config.memory, receivers->config.page_count,
                                          receivers->touched, &decoder);

    while (err == NULL && !has_ended) {
        bool is_ready = false;

        /* Between rounds there may be nothing to say for long; the link knows when it is lost. */
        err = frame_stream_wait(receiver->stream, clock_monotonic_ns() + 60u * (uint64_t)NS_PER_S,
                                &is_ready);
        if (err == NULL && is_ready)
            err = receive_frame(receiver, decoder, &has_ended);
    }
    page_decoder_destroy(decoder);
    return err;
}

static void receiver_main(void *argument)
{
    struct receiver *receiver = argument;
    struct page_receivers *receivers = receiver->receivers;
    struct err *err = admit(receiver);

    if (err != NULL) {
        log_err(LOG_WARNING, "data connection dropped", err);
        return;
    }
    err = receive_all(receiver);
    if (err != NULL) {
        note_failure(receivers, err_wrap(err, "receive pages"));
        return;
    }
    lock_acquire(&receivers->lock);
    receivers->ended++;
    lock_condition_broadcast(&receivers->changed);
    lock_release(&receivers->lock);
}

struct err *page_receivers_add(struct page_receivers *receivers, struct incoming *incoming)
{
    struct receiver *receiver = NULL;

    lock_acquire(&receivers->lock);
    if (receivers->count < RECEIVERS_MAX && !receivers->is_interrupted)
        receiver = &receivers->receivers[receivers->count++];
    lock_release(&receivers->lock);
    if (receiver == NULL) {
        incoming->ops->destroy(incoming);
        return err_new(ERR_DENIED, "too many connections to one session");
    }
    receiver->receivers = receivers;
    receiver->incoming = incoming;
    return thread_create(ROLE_RECEIVER, (unsigned)(receiver - receivers->receivers), receiver_main,
                         receiver, &receiver->thread);
}

struct err *page_receivers_wait_end(struct page_receivers *receivers, uint32_t timeout_ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    struct err *err = NULL;

    lock_acquire(&receivers->lock);
    while (receivers->ended < receivers->config.channel_count && receivers->failure == NULL &&
           !receivers->is_interrupted && clock_monotonic_ns() < deadline_ns)
        (void)lock_condition_wait_until(&receivers->changed, &receivers->lock, deadline_ns);
    if (receivers->failure != NULL)
        err = err_new(err_kind(receivers->failure), "%s", err_message(receivers->failure));
    else if (receivers->is_interrupted)
        err = err_new(ERR_CANCELLED, "receiving pages was given up");
    else if (receivers->ended < receivers->config.channel_count)
        err = err_new(ERR_TIMEOUT, "%zu of %zu data connections have brought their last page",
                      receivers->ended, receivers->config.channel_count);
    lock_release(&receivers->lock);
    return err;
}

void page_receivers_interrupt(struct page_receivers *receivers)
{
    lock_acquire(&receivers->lock);
    receivers->is_interrupted = true;
    for (size_t i = 0; i < receivers->count; i++)
        if (receivers->receivers[i].stream != NULL)
            channel_interrupt(frame_stream_channel(receivers->receivers[i].stream));
    lock_condition_broadcast(&receivers->changed);
    lock_release(&receivers->lock);
}

void page_receivers_destroy(struct page_receivers *receivers) LOCK_UNCHECKED
{
    if (receivers == NULL)
        return;
    page_receivers_interrupt(receivers);
    for (size_t i = 0; i < receivers->count; i++) {
        struct receiver *receiver = &receivers->receivers[i];

        thread_join(receiver->thread);
        frame_stream_destroy(receiver->stream);
        if (receiver->incoming != NULL)
            receiver->incoming->ops->destroy(receiver->incoming);
    }
    err_free(receivers->failure);
    lock_condition_finish(&receivers->changed);
    lock_finish(&receivers->lock);
    free(receivers->touched);
    free(receivers);
}

struct err *page_receivers_failure(struct page_receivers *receivers)
{
    lock_acquire(&receivers->lock);
    struct err *err = receivers->failure == NULL ? NULL
                                                 : err_new(err_kind(receivers->failure), "%s",
                                                           err_message(receivers->failure));
    lock_release(&receivers->lock);
    return err;
}
