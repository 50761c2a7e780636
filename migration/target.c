/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target.c - see target.h. Tested by: move_test.c.
 */
#include "migration/target.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/test_hook.h"
#include "control/control_client.h"
#include "control/lent_memory.h"
#include "control/machine_process.h"
#include "migration/dialer.h"
#include "migration/link.h"
#include "migration/session_record.h"

#define PROGRAM "vm-receive"

/* The source has read the last word, and answers or hangs up, within this time. */
#define LAST_WORD_MS_MAX 5000u

/* A move may take as long as it makes progress: the link notices when it does not. */
#define WHILE_LINKED_MS UINT32_MAX

struct target {
    struct target_config config;
    struct frame_stream *stream; /* owned, until the link has it */
    struct channel *channel;     /* of the stream */
    struct session_id session;
    struct link *link;              /* owned */
    Ferry__MigrationFrame *offer;   /* owned */
    struct control_client *control; /* owned */
    pid_t machine_pid;              /* 0: none */
    struct lent_memory *memory;     /* owned */
    struct session_record *record;  /* owned */
    bool is_ready_sent;
    bool has_moved;

    struct lock lock;
    struct page_receivers *receivers GUARDED_BY(&lock); /* owned; set once */
};

static struct err *process_start(struct machine_source *source, const char *name,
                                 struct control_client **out_client, pid_t *out_pid)
{
    CLEANUP(cleanup_free) char *log_path = NULL;

    (void)source;
    return machine_process_start(name, PROGRAM, out_client, out_pid, &log_path);
}

static void process_reap(struct machine_source *source, pid_t pid)
{
    (void)source;
    machine_process_reap(pid);
}

struct machine_source *machine_source_process(void)
{
    static const struct machine_source_ops ops = {
        .start = process_start,
        .reap = process_reap,
    };
    static struct machine_source source = {.ops = &ops};

    return &source;
}

struct err *target_create(struct channel *channel, const struct target_config *config,
                          struct target **out_target)
{
    CLEANUP(cleanup_frame_stream) struct frame_stream *stream = NULL;
    TRY(frame_stream_create(channel, &stream));
    struct target *target = calloc(1, sizeof(*target));

    if (target == NULL)
        return err_new(ERR_NO_MEMORY, "migration session");
    target->config = *config;
    target->channel = channel;
    target->stream = TAKE_PTR(stream);
    lock_init(&target->lock, LOCK_MIGRATION_SESSION);
    *out_target = target;
    return NULL;
}

bool target_has_moved(const struct target *target)
{
    return target->has_moved;
}

/* The link has failed: nothing more will come. */
static void link_failed(void *context)
{
    struct target *target = context;

    lock_acquire(&target->lock);
    if (target->receivers != NULL)
        page_receivers_interrupt(target->receivers);
    lock_release(&target->lock);
}

/* A data connection has failed: whoever waits on the link shall know. */
static void receivers_failed(void *context)
{
    struct target *target = context;
    struct err *err = NULL;

    lock_acquire(&target->lock);
    if (target->receivers != NULL)
        err = page_receivers_failure(target->receivers);
    lock_release(&target->lock);
    if (err != NULL)
        link_fail(target->link, err);
}

/* Ends the receivers' threads: after it, nobody writes the machine's memory. */
static void close_receivers(struct target *target)
{
    lock_acquire(&target->lock);
    struct page_receivers *receivers = TAKE_PTR(target->receivers);
    lock_release(&target->lock);
    page_receivers_destroy(receivers);
}

void target_destroy(struct target *target)
{
    if (target == NULL)
        return;
    close_receivers(target);
    link_destroy(target->link);
    frame_stream_destroy(target->stream);
    if (target->offer != NULL)
        ferry__migration_frame__free_unpacked(target->offer, NULL);
    lent_memory_return(target->memory);
    control_client_close(target->control);
    session_record_close(target->record);
    lock_finish(&target->lock);
    free(target);
}

struct err *target_add(struct target *target, struct incoming *incoming)
{
    struct err *err = NULL;

    lock_acquire(&target->lock);
    if (target->receivers != NULL) {
        err = page_receivers_add(target->receivers, incoming);
    } else {
        incoming->ops->destroy(incoming);
        err = err_new(ERR_DENIED, "a data connection for which the session has no use");
    }
    lock_release(&target->lock);
    return err;
}

static struct err *answer_query(struct target *target)
{
    Ferry__MigrationAnswer answer = FERRY__MIGRATION_ANSWER__INIT;
    Ferry__MigrationFrame frame;

    TRY(session_record_ask(&target->session, target->channel->fingerprint, &answer.outcome));
    FRAME_BODY(&frame, ANSWER, answer, &answer);
    TRY(frame_stream_send(target->stream, &frame, NULL, 0));
    return channel_flush(target->channel);
}

static struct err *send_welcome(struct target *target)
{
    Ferry__MigrationWelcome welcome = FERRY__MIGRATION_WELCOME__INIT;
    Ferry__MigrationFrame frame;

    welcome.protocol = MIGRATION_PROTOCOL;
    welcome.route = session_id_message(&target->config.route);
    welcome.program = (char *)local_program();
    welcome.host = (char *)local_host_name();
    FRAME_BODY(&frame, WELCOME, welcome, &welcome);
    TRY(frame_stream_send(target->stream, &frame, NULL, 0));
    return channel_flush(target->channel);
}

/* Reads the hello. *out_purpose says what this connection is for. */
static struct err *greet(struct target *target, Ferry__MigrationPurpose *out_purpose)
{
    Ferry__MigrationFrame *frame = NULL;

    TRY(frame_stream_expect(target->stream, FERRY__MIGRATION_FRAME__BODY_HELLO,
                            target->config.timeouts->hello_ms, &frame));
    uint32_t protocol = frame->hello->protocol;
    *out_purpose = frame->hello->purpose;
    struct err *err = session_id_from_message(frame->hello->session, &target->session);
    ferry__migration_frame__free_unpacked(frame, NULL);
    if (err != NULL)
        return err;
    if (protocol != MIGRATION_PROTOCOL)
        return err_new(ERR_INCOMPATIBLE,
                       "the source speaks version %u of the protocol, this host version %u; use "
                       "the same version of Ferry on both hosts",
                       protocol, MIGRATION_PROTOCOL);
    return NULL;
}

static struct err *create_receivers(struct target *target)
{
    struct page_receivers *receivers = NULL;
    struct page_receivers_config config = {
        .memory = lent_memory_base(target->memory),
        .page_count = lent_memory_page_count(target->memory),
        .channel_count = target->offer->offer->channels,
        .session = target->session,
        .timeouts = target->config.timeouts,
        .failed = receivers_failed,
        .context = target,
    };

    memcpy(config.fingerprint, target->channel->fingerprint, sizeof(config.fingerprint));
    TRY(page_receivers_create(&config, &receivers));
    lock_acquire(&target->lock);
    target->receivers = receivers;
    lock_release(&target->lock);
    return NULL;
}

/* Builds the machine that the offer describes; every check of the host happens in here. */
static struct err *accept_offer(struct target *target)
{
    TRY(link_wait(target->link, FERRY__MIGRATION_FRAME__BODY_OFFER,
                  target->config.timeouts->hello_ms, &target->offer));
    const Ferry__MigrationOffer *offer = target->offer->offer;
    if (offer->description == NULL || offer->description->config == NULL)
        return err_new(ERR_INVALID, "the offer does not describe a machine");
    if (offer->channels == 0 || offer->channels > MIGRATION_CHANNELS_MAX)
        return err_new(ERR_INVALID, "%u data connections; 1 to %u fit", offer->channels,
                       MIGRATION_CHANNELS_MAX);
    const char *name = offer->description->config->name;
    test_hook("accept");

    TRY(target->config.machines->ops->start(target->config.machines, name, &target->control,
                                            &target->machine_pid));
    TRY(control_configure(target->control, offer->description, true, NULL, 0));
    TRY(control_check_disks(target->control));
    TRY(lent_memory_borrow(target->control, FERRY__LEND_PURPOSE__LEND_INCOMING, "",
                           &target->memory));
    if (lent_memory_page_count(target->memory) != offer->page_count)
        return err_new(ERR_INVALID, "the machine has %ju pages here, %ju at the source",
                       (uintmax_t)lent_memory_page_count(target->memory),
                       (uintmax_t)offer->page_count);
    TRY(session_record_create(&target->session, name, target->channel->fingerprint,
                              target->machine_pid, &target->record));
    return create_receivers(target);
}

static struct err *send_nothing(struct target *target, Ferry__MigrationFrame__BodyCase body)
{
    Ferry__MigrationNothing nothing = FERRY__MIGRATION_NOTHING__INIT;
    Ferry__MigrationFrame frame;

    ferry__migration_frame__init(&frame);
    frame.body_case = body;
    frame.ready = &nothing; /* of one type with accepted, and in one place */
    return link_send(target->link, &frame);
}

/* Only this thread sets the receivers; the lock is for connections that arrive. */
static struct err *receive_state(struct target *target) LOCK_UNCHECKED
{
    Ferry__MigrationFrame *frame = NULL;

    TRY(link_wait(target->link, FERRY__MIGRATION_FRAME__BODY_STATE, WHILE_LINKED_MS, &frame));
    test_hook("load");
    struct err *err = page_receivers_wait_end(target->receivers, target->config.timeouts->drain_ms);
    if (err == NULL)
        err = control_load_state(target->control, frame->state);
    ferry__migration_frame__free_unpacked(frame, NULL);
    return err;
}

/* From here on the guest is ours. An error means that it did not run. */
static struct err *run_machine(struct target *target)
{
    TRY(control_resume_recorded(target->control, session_record_fd(target->record),
                                session_record_running_text()));
    target->has_moved = true;
    test_hook("resumed");
    return session_record_set(target->record, FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING);
}

static void report_running(struct target *target)
{
    Ferry__MigrationRunning running = FERRY__MIGRATION_RUNNING__INIT;
    Ferry__MigrationFrame frame;

    struct err *err = control_wait_entered(target->control, &running.first_run_ns);
    if (err != NULL)
        log_err(LOG_WARNING, "when the machine was entered", err);
    FRAME_BODY(&frame, RUNNING, running, &running);
    err = link_send(target->link, &frame);
    /* The source will ask, and the record answers. */
    if (err != NULL)
        log_err(LOG_WARNING, "tell the source that the machine runs", err);
}

static struct err *take_machine(struct target *target)
{
    Ferry__MigrationFrame *frame = NULL;

    TRY(accept_offer(target));
    TRY(send_nothing(target, FERRY__MIGRATION_FRAME__BODY_ACCEPTED));
    TRY(receive_state(target));
    test_hook("ready");
    target->is_ready_sent = true;
    TRY(send_nothing(target, FERRY__MIGRATION_FRAME__BODY_READY));
    TRY(link_wait(target->link, FERRY__MIGRATION_FRAME__BODY_COMMIT,
                  target->config.timeouts->commit_ms, &frame));
    ferry__migration_frame__free_unpacked(frame, NULL);
    test_hook("committed");
    return run_machine(target);
}

/* The machine's process ends before the record says that it never ran. */
static void abandon(struct target *target)
{
    close_receivers(target);
    lent_memory_return(TAKE_PTR(target->memory));
    control_client_close(TAKE_PTR(target->control));
    if (target->machine_pid != 0)
        target->config.machines->ops->reap(target->config.machines, target->machine_pid);
    if (target->record == NULL)
        return;
    struct err *err =
        session_record_set(target->record, FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    /* Whoever is asked next finds nobody alive and decides the same. */
    if (err != NULL)
        log_err(LOG_ERROR, "write down that the session has failed", err);
    if (!target->is_ready_sent)
        session_record_forget(target->record);
}

/* The source says when it has acted on 'running' for good; without that it may ask again. */
static void await_settled(struct target *target)
{
    Ferry__MigrationFrame *end = NULL;
    struct err *err =
        link_wait(target->link, FERRY__MIGRATION_FRAME__BODY_END, LAST_WORD_MS_MAX, &end);

    if (err == NULL) {
        ferry__migration_frame__free_unpacked(end, NULL);
        session_record_forget(target->record);
    }
    err_free(err);
}

static struct err *move(struct target *target)
{
    TRY(send_welcome(target));
    TRY(link_create(TAKE_PTR(target->stream), target->config.timeouts, link_failed, target,
                    &target->link));
    struct err *err = take_machine(target);
    if (err == NULL) {
        report_running(target);
        await_settled(target);
    } else {
        abandon(target);
        link_send_error(target->link, err);
        link_await_end(target->link, LAST_WORD_MS_MAX);
    }
    return err;
}

struct err *target_run(struct target *target)
{
    Ferry__MigrationPurpose purpose = FERRY__MIGRATION_PURPOSE__MIGRATION_PURPOSE_UNSPECIFIED;
    struct err *err = greet(target, &purpose);

    if (err == NULL && purpose == FERRY__MIGRATION_PURPOSE__MIGRATION_CONTROL)
        return move(target);
    if (err == NULL && purpose == FERRY__MIGRATION_PURPOSE__MIGRATION_QUERY)
        err = answer_query(target);
    else if (err == NULL)
        err = err_new(ERR_DENIED, "a data connection without its session");
    if (err != NULL)
        frame_stream_send_error(target->stream, err);
    return err;
}
