/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "migration/preamble.h"
#include "migration/session_record.h"

static const uint8_t host_a[CHANNEL_FINGERPRINT_BYTES] = {1};
static const uint8_t host_c[CHANNEL_FINGERPRINT_BYTES] = {3};

static struct session_id session;
static pid_t machine;

static int set_up(void **state)
{
    char folder[] = "/tmp/session_record.XXXXXX";

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)setenv("FERRY_STATE_DIR", folder, 1);
    ASSERT_OK(session_id_create(&session));
    machine = fork();
    assert_true(machine >= 0);
    if (machine == 0) {
        (void)pause();
        _exit(0);
    }
    return 0;
}

static void end_machine(void)
{
    if (machine > 0) {
        (void)kill(machine, SIGKILL);
        (void)waitpid(machine, NULL, 0);
        machine = 0;
    }
}

static int tear_down(void **state)
{
    char command[256];

    (void)state;
    end_machine();
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", getenv("FERRY_STATE_DIR"));
    return system(command);
}

static Ferry__MigrationOutcome ask(void)
{
    Ferry__MigrationOutcome outcome = FERRY__MIGRATION_OUTCOME__MIGRATION_OUTCOME_UNSPECIFIED;

    ASSERT_OK(session_record_ask(&session, host_a, &outcome));
    return outcome;
}

static struct session_record *create(void)
{
    struct session_record *record = NULL;

    ASSERT_OK(session_record_create(&session, "web", host_a, machine, &record));
    return record;
}

TEST(a_session_that_was_never_here_is_unknown)
{
    assert_int_equal(ask(), FERRY__MIGRATION_OUTCOME__MIGRATION_UNKNOWN);
}

TEST(a_prepared_session_is_undecided_while_its_process_lives)
{
    struct session_record *record = create();

    assert_int_equal(ask(), FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED);
    session_record_close(record);
}

TEST(a_prepared_session_is_undecided_while_its_machine_lives)
{
    session_record_close(create());

    assert_int_equal(ask(), FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED);
}

TEST(a_prepared_session_is_aborted_for_ever_once_all_are_gone)
{
    session_record_close(create());
    end_machine();

    assert_int_equal(ask(), FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    assert_int_equal(ask(), FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED);
}

TEST(a_machine_that_ran_is_running_even_when_all_are_gone)
{
    struct session_record *record = create();

    ASSERT_OK(session_record_set(record, FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING));
    session_record_close(record);
    end_machine();

    assert_int_equal(ask(), FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING);
}

TEST(what_the_machine_writes_counts_as_running)
{
    struct session_record *record = create();

    assert_int_equal(pwrite(session_record_fd(record), session_record_running_text(),
                            SESSION_RECORD_OUTCOME_BYTES, 0),
                     SESSION_RECORD_OUTCOME_BYTES);

    assert_int_equal(ask(), FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING);
    session_record_close(record);
}

TEST(a_decision_is_not_taken_back)
{
    struct session_record *record = create();

    ASSERT_OK(session_record_set(record, FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED));

    assert_fails(session_record_set(record, FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING),
                 ERR_STATE);
    session_record_close(record);
}

TEST(another_host_learns_nothing)
{
    struct session_record *record = create();
    Ferry__MigrationOutcome outcome;

    assert_fails(session_record_ask(&session, host_c, &outcome), ERR_DENIED);
    session_record_close(record);
}

TEST(a_session_can_not_come_twice)
{
    struct session_record *record = create();
    struct session_record *again = NULL;

    assert_fails(session_record_create(&session, "web", host_a, machine, &again), ERR_STATE);
    session_record_close(record);
}

TEST(a_preamble_carries_a_route)
{
    uint8_t bytes[PREAMBLE_BYTES];
    struct session_id route;

    preamble_write(&session, bytes);

    assert_true(preamble_read(bytes, &route));
    assert_true(session_id_equal(&route, &session));
    bytes[3] ^= 1;
    assert_false(preamble_read(bytes, &route));
}

#define WITH_MACHINE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_MACHINE(a_session_that_was_never_here_is_unknown),
        WITH_MACHINE(a_prepared_session_is_undecided_while_its_process_lives),
        WITH_MACHINE(a_prepared_session_is_undecided_while_its_machine_lives),
        WITH_MACHINE(a_prepared_session_is_aborted_for_ever_once_all_are_gone),
        WITH_MACHINE(a_machine_that_ran_is_running_even_when_all_are_gone),
        WITH_MACHINE(what_the_machine_writes_counts_as_running),
        WITH_MACHINE(a_decision_is_not_taken_back),
        WITH_MACHINE(another_host_learns_nothing),
        WITH_MACHINE(a_session_can_not_come_twice),
        WITH_MACHINE(a_preamble_carries_a_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
