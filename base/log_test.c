/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/unit_test.h"

#define CAPTURE_BYTES 65536

static char captured[CAPTURE_BYTES];
static int stderr_copy;
static int pipe_end;

static void capture_start(void)
{
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    stderr_copy = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(close(ends[1]), 0);
    pipe_end = ends[0];
}

/* What was logged since the start, as one text. */
static const char *capture_end(void)
{
    assert_int_equal(dup2(stderr_copy, STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(close(stderr_copy), 0);

    size_t used = 0;
    ssize_t got = 0;
    while ((got = read(pipe_end, captured + used, sizeof(captured) - 1 - used)) > 0)
        used += (size_t)got;
    captured[used] = '\0';
    assert_int_equal(close(pipe_end), 0);
    return captured;
}

static size_t lines_in(const char *text)
{
    size_t lines = 0;

    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

TEST(a_line_names_program_level_event_and_fields)
{
    log_set_program("vm-run");
    capture_start();

    log_warning("disk is slow", "name=%s ms=%d", "root", 40);

    assert_string_equal(capture_end(), "vm-run: warning: disk is slow name=root ms=40\n");
}

TEST(what_is_below_the_level_is_not_written)
{
    capture_start();

    log_debug("nobody asked", "x=%d", 1);
    log_set_level(LOG_DEBUG);
    log_debug("somebody asked", "x=%d", 2);
    log_set_level(LOG_INFO);

    assert_string_equal(capture_end(), "vm-run: debug: somebody asked x=2\n");
}

TEST(an_error_is_logged_with_its_cause_and_freed)
{
    capture_start();

    log_err(LOG_ERROR, "snapshot failed", err_new(ERR_IO, "write 'x'"));

    assert_string_equal(capture_end(), "vm-run: error: snapshot failed cause=\"write 'x'\"\n");
}

TEST(text_from_outside_can_not_fake_a_second_line)
{
    capture_start();

    log_info("guest says", "text=%s", "a\nvm-run: error: b\033[2J");

    assert_string_equal(capture_end(), "vm-run: info: guest says text=a?vm-run: error: b?[2J\n");
}

TEST(a_very_long_line_is_cut_and_still_ends)
{
    char text[8192];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    capture_start();

    log_info("long", "text=%s", text);

    const char *line = capture_end();
    assert_int_equal(lines_in(line), 1);
    assert_in_range(strlen(line), 1000, 4096);
}

TEST(a_place_that_a_guest_can_reach_logs_ten_lines_a_second)
{
    clock_fake_start(5 * NS_PER_S, 0);
    capture_start();

    for (int i = 0; i < 50; i++) {
        if (i == 40)
            clock_fake_advance(NS_PER_S);
        log_guest("bad descriptor", "index=%d", i);
    }
    clock_fake_stop();

    assert_int_equal(lines_in(capture_end()), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_names_program_level_event_and_fields),
        cmocka_unit_test(what_is_below_the_level_is_not_written),
        cmocka_unit_test(an_error_is_logged_with_its_cause_and_freed),
        cmocka_unit_test(text_from_outside_can_not_fake_a_second_line),
        cmocka_unit_test(a_very_long_line_is_cut_and_still_ends),
        cmocka_unit_test(a_place_that_a_guest_can_reach_logs_ten_lines_a_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
