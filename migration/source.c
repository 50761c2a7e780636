/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.c - see source.h. Tested by: move_test.c.
 *
 * How it works. One table of phases; when one fails, those already begun are undone from the last
 * to the first. The invariant: until commit is sent, the source can always resume; after that, only
 * the target's answer says who may run.
 *
 *     phase         the guest runs   a lost connection means
 *     connect       here             nothing has happened
 *     check         here             the target drops its empty machine
 *     channels      here             likewise
 *     precopy       here             likewise
 *     record        here             likewise; the note says "perhaps given away" and is removed
 *     stop          nowhere          resume here
 *     state         nowhere          resume here: the target waits for commit in vain
 *     hand over     nowhere          take the locks back, resume here
 *     commit        target, or open  ask the target until it answers; stay paused meanwhile
 *     finish        target           nothing: the target said 'running'
 *
 * The target is asked over new connections, because the one that broke may be all that is wrong.
 */
#include "migration/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/test_hook.h"
#include "control/control_client.h"
#include "control/lent_memory.h"
#include "migration/blackout.h"
#include "migration/handover_record.h"
#include "migration/link.h"
#include "migration/page_senders.h"
#include "migration/preamble.h"
#include "migration/precopy.h"
#include "migration/settle.h"

/* How long a cause that the target sends may take to arrive after its connections broke. */
#define CAUSE_MS_MAX 2000u

/* The target has read our last word, and hangs up, within this time. */
#define LAST_WORD_MS_MAX 1000u

struct source {
    struct source_config config;
    struct session_id session;
    struct session_id route;
    struct link *link;          /* owned */
    struct lent_memory *memory; /* owned */
    Ferry__ControlReply *state; /* owned; the machine's, once it stands */
    struct precopy precopy;
    struct move_report report;
    uint64_t paused_ns;
    bool is_open;  /* nobody knows where the guest runs */
    int cancel_fd; /* owned; readable once cancelled */

    struct lock lock;
    struct page_senders *senders GUARDED_BY(&lock); /* owned */
    bool is_cancelled GUARDED_BY(&lock);
    bool is_committed GUARDED_BY(&lock);
    struct link *cancel_link GUARDED_BY(&lock); /* the link, while it may be failed from outside */
};

static void free_reply(Ferry__ControlReply *reply)
{
    if (reply != NULL)
        ferry__control_reply__free_unpacked(reply, NULL);
}

static struct err *cancelled_error(void)
{
    return err_new(ERR_CANCELLED, "cancelled; the machine runs on here");
}

static void link_failed(void *context)
{
    struct source *source = context;

    lock_acquire(&source->lock);
    if (source->senders != NULL)
        page_senders_interrupt(source->senders);
    lock_release(&source->lock);
}

/* Phases. */

static struct err *connect_target(struct source *source)
{
    CLEANUP(cleanup_frame_stream) struct frame_stream *stream = NULL;
    struct dialer *dialer = source->config.dialer;
    Ferry__MigrationFrame *frame = NULL;

    TRY(dialer_hello(dialer, &route_new_session, FERRY__MIGRATION_PURPOSE__MIGRATION_CONTROL,
                     &source->session, 0, &stream));
    TRY(frame_stream_expect(stream, FERRY__MIGRATION_FRAME__BODY_WELCOME,
                            dialer->timeouts->hello_ms, &frame));
    struct err *err = session_id_from_message(frame->welcome->route, &source->route);
    ferry__migration_frame__free_unpacked(frame, NULL);
    if (err != NULL)
        return err;
    TRY(link_create(TAKE_PTR(stream), dialer->timeouts, link_failed, source, &source->link));
    lock_acquire(&source->lock);
    source->cancel_link = source->link;
    lock_release(&source->lock);
    return NULL;
}

/* Everything that can be known to be wrong is found here, before a page moves. */
static struct err *check_target(struct source *source)
{
    Ferry__MigrationOffer offer = FERRY__MIGRATION_OFFER__INIT;
    Ferry__MigrationFrame frame;
    Ferry__MigrationFrame *accepted = NULL;
    Ferry__ControlReply *reply = NULL;

    TRY(lent_memory_borrow(source->config.control, FERRY__LEND_PURPOSE__LEND_MIGRATE, "",
                           &source->memory));
    TRY(control_describe(source->config.control, &reply));
    offer.description = reply->description;
    offer.page_count = lent_memory_page_count(source->memory);
    offer.channels = source->config.channels;
    source->report.memory_pages = offer.page_count;
    FRAME_BODY(&frame, OFFER, offer, &offer);
    struct err *err = link_send(source->link, &frame);
    free_reply(reply);
    if (err != NULL)
        return err;
    TRY(link_wait(source->link, FERRY__MIGRATION_FRAME__BODY_ACCEPTED,
                  source->config.dialer->timeouts->accept_ms, &accepted));
    ferry__migration_frame__free_unpacked(accepted, NULL);
    return NULL;
}

static void return_memory(struct source *source)
{
    if (source->memory == NULL)
        return;
    lent_memory_return(TAKE_PTR(source->memory));
    struct err *err = control_return_memory(source->config.control);
    if (err != NULL)
        log_err(LOG_WARNING, "stop tracking memory", err);
}

static struct err *open_channel(struct source *source, uint32_t index,
                                struct frame_stream **out_stream)
{
    CLEANUP(cleanup_frame_stream) struct frame_stream *stream = NULL;
    struct dialer *dialer = source->config.dialer;
    Ferry__MigrationFrame *frame = NULL;

    TRY(dialer_hello(dialer, &source->route, FERRY__MIGRATION_PURPOSE__MIGRATION_DATA,
                     &source->session, index, &stream));
    TRY(frame_stream_expect(stream, FERRY__MIGRATION_FRAME__BODY_WELCOME,
                            dialer->timeouts->hello_ms, &frame));
    ferry__migration_frame__free_unpacked(frame, NULL);
    *out_stream = TAKE_PTR(stream);
    return NULL;
}

static struct err *open_channels(struct source *source)
{
    struct frame_stream *streams[MIGRATION_CHANNELS_MAX] = {NULL};
    struct page_senders *senders = NULL;
    struct page_senders_config config = {
        .memory = lent_memory_base(source->memory),
        .streams = streams,
        .stream_count = source->config.channels,
        .bytes_per_second = source->config.bytes_per_second,
    };

    for (uint32_t i = 0; i < source->config.channels; i++) {
        struct err *err = open_channel(source, i, &streams[i]);
        if (err != NULL) {
            for (uint32_t opened = 0; opened < i; opened++)
                frame_stream_destroy(streams[opened]);
            return err_wrap(err, "data connection %u", i);
        }
    }
    TRY(page_senders_create(&config, &senders));
    lock_acquire(&source->lock);
    source->senders = senders;
    lock_release(&source->lock);
    return NULL;
}

static void close_channels(struct source *source)
{
    lock_acquire(&source->lock);
    struct page_senders *senders = TAKE_PTR(source->senders);
    lock_release(&source->lock);
    if (senders != NULL)
        source->report.pages = page_senders_counts(senders);
    page_senders_destroy(senders);
}

static void round_done(void *context, const struct precopy_progress *progress)
{
    struct source *source = context;

    source->config.observer->ops->round(source->config.observer, progress);
}

static struct err *copy_rounds(struct source *source)
{
    TRY(precopy_run(&source->precopy));
    source->report.rounds = source->precopy.progress.rounds_done;
    source->report.blackout_predicted_ns = precopy_blackout_ns(source->precopy.progress);
    return NULL;
}

/* Only this thread sets the senders; the lock is for those who look on. */
static struct err *copy_memory(struct source *source) LOCK_UNCHECKED
{
    source->precopy = (struct precopy){
        .control = source->config.control,
        .memory = source->memory,
        .senders = source->senders,
        .link = source->link,
        .limits = source->config.limits,
        .round_done = round_done,
        .context = source,
    };
    return copy_rounds(source);
}

static struct err *write_record(struct source *source)
{
    return handover_record_write(source->config.name, source->config.target, &source->session);
}

static void remove_record(struct source *source)
{
    struct err *err = handover_record_remove(source->config.name);

    if (err != NULL)
        log_err(LOG_WARNING, "hand-over record", err);
}

static void resume_guest(struct source *source)
{
    struct err *err = control_resume(source->config.control);

    if (err != NULL)
        log_err(LOG_ERROR, "resume the machine", err);
}

/* Between the last round and the stop the guest may have written more than the budget allows for.
 * Then it goes on, and so do the rounds, of which there is only a limited number. */
static struct err *stop_guest(struct source *source)
{
    const struct precopy_limits *limits = &source->config.limits;

    for (;;) {
        TRY(control_pause(source->config.control, true, &source->paused_ns));
        struct err *err = precopy_count_rest(&source->precopy);
        if (err == NULL && precopy_fits(source->precopy.progress, *limits))
            return NULL;
        resume_guest(source);
        if (err != NULL)
            return err;
        TRY(copy_rounds(source));
    }
}

/* State first: saving it can write guest memory, which the rest then carries. */
static struct err *send_state(struct source *source)
{
    Ferry__MigrationFrame frame;
    Ferry__MigrationFrame *ready = NULL;

    TRY(control_save_state(source->config.control, &source->state));
    TRY(precopy_send_rest(&source->precopy, &source->report.rest_pages));
    FRAME_BODY(&frame, STATE, state, source->state->state);
    source->report.state_bytes = ferry__machine_state__get_packed_size(source->state->state);
    TRY(link_send(source->link, &frame));
    TRY(link_wait(source->link, FERRY__MIGRATION_FRAME__BODY_READY,
                  source->config.dialer->timeouts->drain_ms +
                      source->config.dialer->timeouts->ready_ms,
                  &ready));
    ferry__migration_frame__free_unpacked(ready, NULL);
    return NULL;
}

static struct err *hand_over(struct source *source)
{
    return control_hand_over(source->config.control, source->config.target, source->session.bytes);
}

static void take_back(struct source *source)
{
    struct err *err = control_take_back(source->config.control);

    if (err != NULL)
        log_err(LOG_ERROR, "take the machine back", err);
}

static void told_waiting(void *context, const char *why)
{
    struct move_observer *observer = context;

    observer->ops->waiting(observer, why);
}

/* The answer to commit did not come: asks until it is known. `cause` is why; it is taken. */
static struct err *learn_outcome(struct source *source, struct err *cause)
{
    Ferry__MigrationOutcome outcome = FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED;
    struct err *err = settle_wait(source->config.dialer, &source->session, source->cancel_fd,
                                  told_waiting, source->config.observer, &outcome);

    if (err != NULL) {
        source->is_open = true;
        err_free(cause);
        return err_wrap(err,
                        "the machine was handed over to '%s' and it is not known whether it runs "
                        "there; it stays paused here; 'vm-migrate --settle %s' goes on asking",
                        source->config.target, source->config.name);
    }
    if (outcome == FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED)
        return cause;
    err_free(cause);
    return NULL;
}

static struct err *send_commit(struct source *source)
{
    Ferry__MigrationNothing nothing = FERRY__MIGRATION_NOTHING__INIT;
    Ferry__MigrationFrame frame;
    Ferry__MigrationFrame *running = NULL;

    lock_acquire(&source->lock);
    bool is_cancelled = source->is_cancelled;
    source->is_committed = !is_cancelled;
    lock_release(&source->lock);
    if (is_cancelled)
        return cancelled_error();

    FRAME_BODY(&frame, COMMIT, commit, &nothing);
    uint64_t committed_ns = clock_monotonic_ns();
    struct err *err = link_send(source->link, &frame);
    test_hook("commit sent");
    if (err == NULL)
        err = link_wait(source->link, FERRY__MIGRATION_FRAME__BODY_RUNNING,
                        source->config.dialer->timeouts->running_ms, &running);
    if (err != NULL)
        return learn_outcome(source, err);

    struct blackout_times times = {
        .paused_ns = source->paused_ns,
        .committed_ns = committed_ns,
        .answered_ns = clock_monotonic_ns(),
        .entered_ns = running->running->first_run_ns,
        .clock_offset_ns = link_clock_offset_ns(source->link),
    };
    ferry__migration_frame__free_unpacked(running, NULL);
    if (times.entered_ns != 0)
        source->report.blackout_ns = blackout_ns(times);
    return NULL;
}

static struct err *quit_machine(struct control_client *control, const char *target)
{
    char reason[sizeof(((struct host_address *)NULL)->host) + 32];

    (void)snprintf(reason, sizeof(reason), "moved to %s", target);
    return control_quit(control, reason);
}

static struct err *finish(struct source *source)
{
    struct err *err = quit_machine(source->config.control, source->config.target);

    /* It can not run again in any case: it has been handed over. */
    if (err != NULL)
        log_err(LOG_WARNING, "end the machine's process", err);
    remove_record(source);
    return NULL;
}

/* Nobody here will ask about the session again, so the target need not keep its record. Waits until
 * the target has read that, or it might be lost with our end. */
static void send_settled(struct source *source)
{
    Ferry__MigrationEnd end = FERRY__MIGRATION_END__INIT;
    Ferry__MigrationFrame frame;

    FRAME_BODY(&frame, END, end, &end);
    struct err *err = link_send(source->link, &frame);
    if (err == NULL)
        link_await_end(source->link, LAST_WORD_MS_MAX);
    err_free(err);
}

struct phase_row {
    const char *name;
    struct err *(*run)(struct source *source);
    void (*undo)(struct source *source);
};

/* clang-format off */
static const struct phase_row phases[] = {
    {"connect",   connect_target, NULL          },
    {"check",     check_target,   return_memory },
    {"channels",  open_channels,  close_channels},
    {"precopy",   copy_memory,    NULL          },
    {"record",    write_record,   remove_record },
    {"stop",      stop_guest,     resume_guest  },
    {"state",     send_state,     NULL          },
    {"hand over", hand_over,      take_back     },
    {"commit",    send_commit,    NULL          },
    {"finish",    finish,         NULL          },
};
/* clang-format on */

struct err *source_create(const struct source_config *config, struct source **out_source)
{
    struct source *source = calloc(1, sizeof(*source));

    if (source == NULL)
        return err_new(ERR_NO_MEMORY, "migration");
    source->config = *config;
    source->cancel_fd = eventfd(0, EFD_CLOEXEC);
    lock_init(&source->lock, LOCK_MIGRATION_SESSION);
    struct err *err =
        source->cancel_fd < 0 ? err_errno(errno, "migration") : session_id_create(&source->session);
    if (err != NULL) {
        source_destroy(source);
        return err;
    }
    *out_source = source;
    return NULL;
}

void source_destroy(struct source *source)
{
    if (source == NULL)
        return;
    lock_acquire(&source->lock);
    source->cancel_link = NULL;
    lock_release(&source->lock);
    close_channels(source);
    link_destroy(source->link);
    lent_memory_return(source->memory);
    free_reply(source->state);
    if (source->cancel_fd >= 0)
        close(source->cancel_fd);
    lock_finish(&source->lock);
    free(source);
}

static bool is_cancelled(struct source *source)
{
    lock_acquire(&source->lock);
    bool is_cancelled = source->is_cancelled && !source->is_committed;
    lock_release(&source->lock);
    return is_cancelled;
}

/* When connections break because the target gave up, its reason is on its way or has arrived; it
 * says more than that they broke. Takes err. */
static struct err *best_cause(struct source *source, struct err *err)
{
    Ferry__MigrationFrame *frame = NULL;

    if (is_cancelled(source)) {
        err_free(err);
        return cancelled_error();
    }
    if (source->link == NULL || (err_kind(err) != ERR_IO && err_kind(err) != ERR_CANCELLED))
        return err;
    struct err *told =
        link_wait(source->link, FERRY__MIGRATION_FRAME__BODY_ERROR, CAUSE_MS_MAX, &frame);
    if (told == NULL)
        ferry__migration_frame__free_unpacked(frame, NULL); /* not possible: errors fail the link */
    if (told == NULL || err_kind(told) == ERR_TIMEOUT) {
        err_free(told);
        return err;
    }
    err_free(err);
    return told;
}

static void undo(struct source *source, size_t phase)
{
    for (size_t i = phase + 1; i-- > 0;)
        if (phases[i].undo != NULL)
            phases[i].undo(source);
}

/* A phase that failed is undone as well as those before it, if it left something half done; pausing
 * and handing over either happen or do not. */
static size_t undo_from(size_t phase)
{
    bool is_half_done = phases[phase].run != stop_guest && phases[phase].run != hand_over;

    return is_half_done ? phase : phase - 1;
}

static struct err *run_phase(struct source *source, size_t phase)
{
    test_hook(phases[phase].name);
    source->config.observer->ops->phase(source->config.observer, phases[phase].name);
    return is_cancelled(source) ? cancelled_error() : phases[phase].run(source);
}

struct err *source_run(struct source *source)
{
    uint64_t started_ns = clock_monotonic_ns();

    for (size_t i = 0; i < ARRAY_COUNT(phases); i++) {
        struct err *err = run_phase(source, i);

        if (err == NULL)
            continue;
        if (source->is_open)
            return err;
        err = best_cause(source, err);
        if (source->link != NULL)
            link_send_error(source->link, err);
        undo(source, undo_from(i));
        if (err_kind(err) == ERR_CANCELLED)
            return err;
        return err_wrap(err, "move '%s', phase '%s'", source->config.name, phases[i].name);
    }
    close_channels(source);
    source->report.round_trip_ns = link_round_trip_ns(source->link);
    source->report.total_ns = clock_monotonic_ns() - started_ns;
    send_settled(source);
    return NULL;
}

bool source_is_open(const struct source *source)
{
    return source->is_open;
}

struct move_report source_report(const struct source *source)
{
    return source->report;
}

void source_cancel(struct source *source)
{
    lock_acquire(&source->lock);
    source->is_cancelled = true;
    struct link *link = source->is_committed ? NULL : source->cancel_link;
    lock_release(&source->lock);
    (void)eventfd_write(source->cancel_fd, 1);
    if (link != NULL) {
        struct err *err = cancelled_error();
        link_send_error(link, err);
        link_fail(link, err);
    }
}

struct page_counts source_counts(struct source *source)
{
    struct page_counts counts = {0};

    lock_acquire(&source->lock);
    if (source->senders != NULL)
        counts = page_senders_counts(source->senders);
    lock_release(&source->lock);
    return counts;
}

struct err *source_settle(struct handed_machine *machine, struct dialer *dialer, int cancel_fd,
                          struct move_observer *observer, bool *out_runs_there)
{
    Ferry__MigrationOutcome outcome = FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED;

    TRY(settle_wait(dialer, &machine->session, cancel_fd, told_waiting, observer, &outcome));
    *out_runs_there = outcome == FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING;
    if (*out_runs_there) {
        TRY(quit_machine(machine->control, "the other host"));
    } else {
        TRY(control_take_back(machine->control));
        TRY(control_resume(machine->control));
    }
    return handover_record_remove(machine->name);
}
