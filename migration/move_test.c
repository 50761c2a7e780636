/* SPDX-License-Identifier: Apache-2.0 */
/* Whole moves of a pretended machine over memory channels: source.c against target.c. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "control/control_client.h"
#include "control/machine_fake.h"
#include "migration/channel_lossy.h"
#include "migration/channel_memory.h"
#include "migration/session_record.h"
#include "migration/settle.h"
#include "migration/source.h"
#include "migration/target.h"

#define TARGETS_MAX 16u

/* The first byte of a frame's body, by which the lossy channel knows it. */
#define TAG_READY   0x52u
#define TAG_COMMIT  0x5au
#define TAG_RUNNING 0x62u
#define TAG_END     0x42u

static const struct timeouts timeouts = {
    .connect_ms = 1000,
    .hello_ms = 1000,
    .heartbeat_ms = 50,
    .silence_ms = 1000,
    .accept_ms = 5000,
    .drain_ms = 5000,
    .ready_ms = 5000,
    .commit_ms = 5000,
    .running_ms = 2000,
    .ask_again_ms = 200,
};

/* The target host: sessions by route, each on a thread. */
struct host_session {
    struct target *target;
    struct thread *thread;
};

static struct {
    struct host_session sessions[TARGETS_MAX];
    size_t session_count;
    struct machine_fake *machine; /* the latest that was built here */
    uint8_t drop_tag;             /* on control connections, of what the target sends */
    bool is_down;                 /* nobody answers */

    struct lock lock;
    struct lock_condition session_ended;
    size_t ended_count GUARDED_BY(&lock);
} host;

static struct err *fake_start(struct machine_source *source, const char *name,
                              struct control_client **out_client, pid_t *out_pid)
{
    (void)source;
    (void)name;
    assert_null(host.machine);
    TRY(machine_fake_start(NULL, &host.machine));
    *out_pid = 0;
    return machine_fake_connect(host.machine, "test", out_client);
}

static void fake_reap(struct machine_source *source, pid_t pid)
{
    (void)source;
    (void)pid;
}

static const struct machine_source_ops fake_source_ops = {.start = fake_start, .reap = fake_reap};
static struct machine_source fake_source = {.ops = &fake_source_ops};

/* Thread: test. */
static void session_main(void *argument)
{
    struct host_session *session = argument;

    err_free(target_run(session->target));
    lock_acquire(&host.lock);
    host.ended_count++;
    lock_condition_broadcast(&host.session_ended);
    lock_release(&host.lock);
}

/* How many sessions have ended, having waited for one to do so. */
static size_t ended_within(uint64_t ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + ms * NS_PER_MS;

    lock_acquire(&host.lock);
    while (host.ended_count == 0 && clock_monotonic_ns() < deadline_ns)
        (void)lock_condition_wait_until(&host.session_ended, &host.lock, deadline_ns);
    size_t count = host.ended_count;
    lock_release(&host.lock);
    return count;
}

/* The second end of a pair, as a connection that arrives. */
struct incoming_memory {
    struct incoming base;
    struct channel *channel;
};

static struct err *incoming_open(struct incoming *incoming, struct channel **out_channel)
{
    struct incoming_memory *self = CONTAINER_OF(incoming, struct incoming_memory, base);

    *out_channel = self->channel;
    self->channel = NULL;
    return NULL;
}

static void incoming_destroy(struct incoming *incoming)
{
    struct incoming_memory *self = CONTAINER_OF(incoming, struct incoming_memory, base);

    channel_destroy(self->channel);
    free(self);
}

static const struct incoming_ops incoming_memory_ops = {
    .open = incoming_open,
    .destroy = incoming_destroy,
};

/* Routes are session numbers plus one, in the first byte. */
static struct err *host_connect(const struct session_id *route, struct channel *channel)
{
    if (route->bytes[0] != 0) {
        struct incoming_memory *incoming = calloc(1, sizeof(*incoming));
        assert_non_null(incoming);
        incoming->base.ops = &incoming_memory_ops;
        incoming->channel = channel;
        return target_add(host.sessions[route->bytes[0] - 1].target, &incoming->base);
    }
    assert_true(host.session_count < TARGETS_MAX);
    struct host_session *session = &host.sessions[host.session_count++];
    struct target_config config = {.timeouts = &timeouts, .machines = &fake_source};
    config.route.bytes[0] = (uint8_t)host.session_count;
    TRY(target_create(channel_lossy_create(channel, host.drop_tag), &config, &session->target));
    return thread_create(ROLE_TEST, 0, session_main, session, &session->thread);
}

/* The source's way to the host. */
static struct {
    struct dialer base;
    struct channel *last; /* the source's end of the latest connection */
    unsigned dialled;
    unsigned corrupt_index; /* the connection, counted from 1, that damages a byte */
    uint64_t corrupt_offset;
    uint8_t drop_tag; /* on the first connection, of what the source sends */
} road;

static struct err *road_dial(struct dialer *dialer, const struct session_id *route,
                             struct channel **out_channel)
{
    struct channel *ours = NULL;
    struct channel *theirs = NULL;

    (void)dialer;
    if (host.is_down)
        return err_new(ERR_IO, "no route to host");
    TRY(channel_memory_pair(timeouts.silence_ms, &ours, &theirs));
    road.dialled++;
    if (road.dialled == road.corrupt_index)
        channel_memory_corrupt(ours, road.corrupt_offset);
    ours = channel_lossy_create(ours, road.dialled == 1 ? road.drop_tag : 0);
    road.last = ours;
    struct err *err = host_connect(route, theirs);
    if (err != NULL) {
        channel_destroy(ours);
        return err;
    }
    *out_channel = ours;
    return NULL;
}

static const struct dialer_ops road_ops = {.name = "memory", .dial = road_dial};

/* What the test does at a phase. */
static struct {
    struct move_observer base;
    const char *cancel_at;
    const char *down_at; /* the host vanishes: its connections as well */
    struct source *source;
    unsigned waits;
    const char *look_at; /* at this phase, how many sessions end soon: */
    size_t ended_count;
} watch;

static void watch_phase(struct move_observer *observer, const char *name)
{
    (void)observer;
    if (watch.cancel_at != NULL && strcmp(name, watch.cancel_at) == 0)
        source_cancel(watch.source);
    if (watch.down_at != NULL && strcmp(name, watch.down_at) == 0)
        host.is_down = true;
    if (watch.look_at != NULL && strcmp(name, watch.look_at) == 0)
        watch.ended_count = ended_within(300);
}

static void watch_round(struct move_observer *observer, const struct precopy_progress *progress)
{
    (void)observer;
    (void)progress;
}

/* A host that was down comes back when it has been asked in vain. */
static void watch_waiting(struct move_observer *observer, const char *why)
{
    (void)observer;
    (void)why;
    watch.waits++;
    host.is_down = false;
}

static const struct move_observer_ops watch_ops = {
    .phase = watch_phase,
    .round = watch_round,
    .waiting = watch_waiting,
};

static struct machine_fake *machine;
static struct control_client *control;
static struct source *source;
static char folder[64];

static const struct machine_fake_config busy_guest = {
    .memory_mib = 32,
    .memory_below_4g_mib = 16,
    .filled_pages = 4000,
    .working_set_pages = 300,
    .pages_per_second = 5000,
    .seed = 42,
};

static void create_source(const struct machine_fake_config *guest, uint32_t channels)
{
    ASSERT_OK(machine_fake_start(guest, &machine));
    ASSERT_OK(machine_fake_connect(machine, "test", &control));
    struct source_config config = {
        .name = "web",
        .target = "host-b:7420",
        .control = control,
        .dialer = &road.base,
        .observer = &watch.base,
        .channels = channels,
        .limits = {.downtime_ms_max = 500, .rounds_max = 30},
    };
    ASSERT_OK(source_create(&config, &source));
    watch.source = source;
}

static int set_up(void **state)
{
    (void)state;
    memset(&host, 0, sizeof(host));
    lock_init(&host.lock, LOCK_TEST);
    lock_condition_init(&host.session_ended);
    memset(&road, 0, sizeof(road));
    memset(&watch, 0, sizeof(watch));
    road.base.ops = &road_ops;
    road.base.timeouts = &timeouts;
    watch.base.ops = &watch_ops;
    (void)strcpy(folder, "/tmp/move_test.XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)setenv("FERRY_STATE_DIR", folder, 1);
    (void)setenv("FERRY_RUNTIME_DIR", folder, 1);
    return 0;
}

static void end_sessions(void)
{
    for (size_t i = 0; i < host.session_count; i++) {
        thread_join(host.sessions[i].thread);
        target_destroy(host.sessions[i].target);
    }
    host.session_count = 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    source_destroy(source);
    source = NULL;
    end_sessions();
    control_client_close(control);
    control = NULL;
    machine_fake_destroy(machine);
    machine = NULL;
    machine_fake_destroy(host.machine);
    lock_condition_finish(&host.session_ended);
    lock_finish(&host.lock);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* Of sessions that arrived here. */
static size_t record_count(void)
{
    char path[96];
    size_t count = 0;

    (void)snprintf(path, sizeof(path), "%s/arrivals", folder);
    DIR *arrivals = opendir(path);
    if (arrivals == NULL)
        return SIZE_MAX;
    for (const struct dirent *entry = readdir(arrivals); entry != NULL; entry = readdir(arrivals))
        count += entry->d_name[0] != '.';
    (void)closedir(arrivals);
    return count;
}

static void assert_moved(void)
{
    assert_non_null(host.machine);
    assert_int_equal(machine_fake_run_state(host.machine),
                     FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING);
    ASSERT_OK(machine_fake_check(host.machine));
    assert_true(machine_fake_has_quit(machine));
}

/* The guest runs on at the source; at the target nothing runs, nothing lies about, and it is
 * written that nothing ever will. */
static void assert_stayed(void)
{
    assert_int_equal(machine_fake_run_state(machine), FERRY__CONTROL_RUN_STATE__RUN_STATE_RUNNING);
    ASSERT_OK(machine_fake_check(machine));
    source_destroy(source);
    source = NULL;
    end_sessions();
    assert_int_equal(machine_fake_borrowers(machine), 0);
    if (host.machine != NULL)
        assert_int_equal(machine_fake_run_state(host.machine),
                         FERRY__CONTROL_RUN_STATE__RUN_STATE_EMPTY);
}

static void assert_says(struct err *err, const char *text)
{
    assert_non_null(err);
    if (strstr(err_message(err), text) == NULL)
        fail_msg("'%s' does not say '%s'", err_message(err), text);
    err_free(err);
}

TEST(a_busy_guest_moves_and_no_byte_is_lost)
{
    create_source(&busy_guest, 2);

    ASSERT_OK(source_run(source));

    assert_moved();
    struct move_report report = source_report(source);
    assert_true(report.rounds >= 1);
    assert_true(report.blackout_ns > 0 && report.blackout_ns < NS_PER_S);
    assert_true(report.pages.raw_pages + report.pages.lz4_pages >= busy_guest.filled_pages);
}

TEST(a_session_that_is_settled_leaves_no_record)
{
    create_source(&busy_guest, 1);

    ASSERT_OK(source_run(source));

    assert_int_equal(ended_within(5000), 1);
    assert_int_equal(record_count(), 0);
    assert_moved();
}

/* Else what it said last may be lost, see link.h. */
TEST(the_target_does_not_hang_up_before_the_source_and_keeps_what_may_be_asked)
{
    road.drop_tag = TAG_END;
    watch.look_at = "finish";
    watch.ended_count = SIZE_MAX;
    create_source(&busy_guest, 1);

    ASSERT_OK(source_run(source));

    assert_int_equal(watch.ended_count, 0);
    source_destroy(source);
    source = NULL;
    assert_int_equal(ended_within(5000), 1);
    assert_int_equal(record_count(), 1);
    assert_moved();
}

TEST(holes_are_not_sent)
{
    struct machine_fake_config idle_guest = busy_guest;

    idle_guest.pages_per_second = 0;
    idle_guest.working_set_pages = 1;
    create_source(&idle_guest, 1);

    ASSERT_OK(source_run(source));

    assert_moved();
    struct move_report report = source_report(source);
    assert_in_range(report.pages.raw_pages + report.pages.lz4_pages + report.pages.zero_pages,
                    idle_guest.filled_pages, idle_guest.filled_pages + 100);
}

TEST(many_channels_carry_one_guest)
{
    create_source(&busy_guest, 8);

    ASSERT_OK(source_run(source));

    assert_moved();
}

TEST(a_move_that_is_cancelled_at_any_phase_before_commit_leaves_the_guest_here)
{
    static const char *const names[] = {"connect", "check", "channels",  "precopy", "record",
                                        "stop",    "state", "hand over", "commit"};

    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        void *state = NULL;

        if (i > 0) {
            (void)tear_down(&state);
            (void)set_up(&state);
        }
        watch.cancel_at = names[i];
        create_source(&busy_guest, 2);

        assert_fails(source_run(source), ERR_CANCELLED);

        assert_false(machine_fake_has_quit(machine));
        assert_stayed();
    }
}

TEST(a_target_that_can_not_build_the_machine_says_why)
{
    struct machine_fake_config with_disk = busy_guest;
    char path[96];

    (void)snprintf(path, sizeof(path), "%s/disk", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    with_disk.disk_path = path;
    create_source(&with_disk, 2);
    assert_int_equal(unlink(path), 0);

    assert_says(source_run(source), "on the target: ");

    assert_stayed();
}

TEST(a_damaged_batch_ends_the_move_and_the_cause_is_told)
{
    road.corrupt_index = 2;
    road.corrupt_offset = 100000;
    create_source(&busy_guest, 1);

    assert_says(source_run(source), "arrived damaged");

    assert_stayed();
    assert_int_equal(record_count(), 0);
}

TEST(a_data_connection_of_a_foreign_session_changes_nothing)
{
    struct frame_stream *stream = NULL;
    Ferry__MigrationFrame *frame = NULL;
    struct session_id stranger = {{9}};
    struct session_id route = {{1}};

    create_source(&busy_guest, 1);
    /* Before the session has use for data connections, and while it has. */
    ASSERT_OK(source_run(source));
    struct err *err = dialer_hello(&road.base, &route, FERRY__MIGRATION_PURPOSE__MIGRATION_DATA,
                                   &stranger, 0, &stream);
    if (err == NULL)
        err = frame_stream_expect(stream, FERRY__MIGRATION_FRAME__BODY_WELCOME, 1000, &frame);

    assert_non_null(err);
    err_free(err);
    frame_stream_destroy(stream);
    assert_moved();
}

TEST(a_lost_ready_leaves_the_guest_here)
{
    host.drop_tag = TAG_READY;
    create_source(&busy_guest, 1);

    assert_says(source_run(source), "silent");

    assert_stayed();
}

TEST(a_lost_commit_is_found_out_and_the_guest_taken_back)
{
    road.drop_tag = TAG_COMMIT;
    create_source(&busy_guest, 1);

    assert_says(source_run(source), "silent");

    assert_stayed();
}

TEST(a_lost_answer_is_asked_for_and_the_guest_has_moved)
{
    host.drop_tag = TAG_RUNNING;
    create_source(&busy_guest, 1);

    ASSERT_OK(source_run(source));

    assert_moved();
}

TEST(nobody_guesses_while_the_target_can_not_be_asked)
{
    host.drop_tag = TAG_RUNNING;
    watch.down_at = "commit";
    create_source(&busy_guest, 1);

    ASSERT_OK(source_run(source));

    assert_true(watch.waits > 0);
    assert_moved();
}

TEST(a_guest_that_writes_too_fast_is_left_where_it_is)
{
    struct machine_fake_config wild = busy_guest;

    wild.filled_pages = 2048;
    wild.working_set_pages = 2048;
    wild.pages_per_second = 200000;
    ASSERT_OK(machine_fake_start(&wild, &machine));
    ASSERT_OK(machine_fake_connect(machine, "test", &control));
    struct source_config config = {
        .name = "web",
        .target = "host-b:7420",
        .control = control,
        .dialer = &road.base,
        .observer = &watch.base,
        .channels = 1,
        .bytes_per_second = 16u << 20,
        .limits = {.downtime_ms_max = 20, .rounds_max = 1},
    };
    ASSERT_OK(source_create(&config, &source));

    assert_says(source_run(source), "--downtime");

    assert_stayed();
}

#define WITH_HOSTS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_HOSTS(a_busy_guest_moves_and_no_byte_is_lost),
        WITH_HOSTS(a_session_that_is_settled_leaves_no_record),
        WITH_HOSTS(the_target_does_not_hang_up_before_the_source_and_keeps_what_may_be_asked),
        WITH_HOSTS(holes_are_not_sent),
        WITH_HOSTS(many_channels_carry_one_guest),
        WITH_HOSTS(a_move_that_is_cancelled_at_any_phase_before_commit_leaves_the_guest_here),
        WITH_HOSTS(a_target_that_can_not_build_the_machine_says_why),
        WITH_HOSTS(a_damaged_batch_ends_the_move_and_the_cause_is_told),
        WITH_HOSTS(a_data_connection_of_a_foreign_session_changes_nothing),
        WITH_HOSTS(a_lost_ready_leaves_the_guest_here),
        WITH_HOSTS(a_lost_commit_is_found_out_and_the_guest_taken_back),
        WITH_HOSTS(a_lost_answer_is_asked_for_and_the_guest_has_moved),
        WITH_HOSTS(nobody_guesses_while_the_target_can_not_be_asked),
        WITH_HOSTS(a_guest_that_writes_too_fast_is_left_where_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
