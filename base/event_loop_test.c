/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/thread.h"
#include "base/unit_test.h"

static struct event_loop *loop;
static char order[16];
static size_t order_len;

static int make_loop(void **state)
{
    (void)state;
    order_len = 0;
    memset(order, 0, sizeof(order));
    ASSERT_OK(event_loop_create(&loop));
    return 0;
}

static int destroy_loop(void **state)
{
    (void)state;
    event_loop_destroy(loop);
    return 0;
}

static void note(void *context)
{
    order[order_len++] = *(const char *)context;
}

static void count_events(void *context, uint32_t events)
{
    uint32_t *seen = context;

    *seen |= events;
    order[order_len++] = 'e';
}

static int signalled_fd(void)
{
    int fd = eventfd(1, EFD_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

TEST(a_ready_fd_calls_back_each_turn)
{
    struct event_source *source = NULL;
    uint32_t seen = 0;
    int fd = signalled_fd();
    ASSERT_OK(event_loop_watch(loop, fd, EPOLLIN, count_events, &seen, &source));

    ASSERT_OK(event_loop_turn(loop, 0));
    ASSERT_OK(event_loop_turn(loop, 0));

    assert_int_equal(seen, EPOLLIN);
    assert_string_equal(order, "ee");
    event_source_remove(source);
    assert_int_equal(close(fd), 0);
}

TEST(changed_interest_takes_effect)
{
    struct event_source *source = NULL;
    uint32_t seen = 0;
    int fd = signalled_fd();
    ASSERT_OK(event_loop_watch(loop, fd, 0, count_events, &seen, &source));

    ASSERT_OK(event_loop_turn(loop, 0));
    assert_int_equal(seen, 0);
    event_source_set_events(source, EPOLLOUT);
    ASSERT_OK(event_loop_turn(loop, 0));

    assert_int_equal(seen, EPOLLOUT);
    event_source_remove(source);
    assert_int_equal(close(fd), 0);
}

TEST(a_hang_up_is_reported_without_being_asked_for)
{
    struct event_source *source = NULL;
    uint32_t seen = 0;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ASSERT_OK(event_loop_watch(loop, ends[0], 0, count_events, &seen, &source));

    assert_int_equal(close(ends[1]), 0);
    ASSERT_OK(event_loop_turn(loop, 0));

    assert_true((seen & EPOLLHUP) != 0);
    event_source_remove(source);
    assert_int_equal(close(ends[0]), 0);
}

static struct event_source *pair[2];

static void remove_both(void *context, uint32_t events)
{
    (void)context;
    (void)events;
    order[order_len++] = 'r';
    event_source_remove(pair[0]);
    event_source_remove(pair[1]);
}

TEST(a_source_removed_in_the_same_turn_is_not_called)
{
    int fds[2] = {signalled_fd(), signalled_fd()};
    ASSERT_OK(event_loop_watch(loop, fds[0], EPOLLIN, remove_both, NULL, &pair[0]));
    ASSERT_OK(event_loop_watch(loop, fds[1], EPOLLIN, remove_both, NULL, &pair[1]));

    ASSERT_OK(event_loop_turn(loop, 0));
    ASSERT_OK(event_loop_turn(loop, 0));

    assert_string_equal(order, "r");
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
}

TEST(a_file_that_can_not_be_watched_is_an_error)
{
    struct event_source *source = NULL;
    uint32_t seen = 0;

    assert_fails(event_loop_watch(loop, -1, EPOLLIN, count_events, &seen, &source), ERR_IO);
    assert_null(source);
}

TEST(timers_fire_once_in_the_order_of_their_deadlines)
{
    struct event_source *early = NULL;
    struct event_source *late = NULL;
    uint64_t now_ns = clock_monotonic_ns();
    ASSERT_OK(event_loop_timer(loop, note, "1", &early));
    ASSERT_OK(event_loop_timer(loop, note, "2", &late));
    event_timer_arm(late, now_ns + 4 * NS_PER_MS);
    event_timer_arm(early, now_ns + 2 * NS_PER_MS);

    while (order_len < 2)
        ASSERT_OK(event_loop_turn(loop, 1000));
    ASSERT_OK(event_loop_turn(loop, 0));

    assert_string_equal(order, "12");
    assert_true(clock_monotonic_ns() >= now_ns + 4 * NS_PER_MS);
}

TEST(a_deadline_in_the_past_fires_at_once)
{
    struct event_source *timer = NULL;
    ASSERT_OK(event_loop_timer(loop, note, "t", &timer));

    event_timer_arm(timer, 0);
    ASSERT_OK(event_loop_turn(loop, 1000));

    assert_string_equal(order, "t");
}

TEST(a_disarmed_timer_stays_silent)
{
    struct event_source *timer = NULL;
    ASSERT_OK(event_loop_timer(loop, note, "t", &timer));
    event_timer_arm(timer, 1);

    event_timer_disarm(timer);
    ASSERT_OK(event_loop_turn(loop, 0));

    assert_string_equal(order, "");
}

TEST(messages_run_in_the_order_of_posting)
{
    ASSERT_OK(event_loop_post(loop, note, "a"));
    ASSERT_OK(event_loop_post(loop, note, "b"));
    ASSERT_OK(event_loop_post(loop, note, "c"));

    ASSERT_OK(event_loop_turn(loop, 0));

    assert_string_equal(order, "abc");
}

static void post_again(void *context)
{
    note(context);
    ASSERT_OK(event_loop_post(loop, note, "z"));
}

TEST(a_message_posted_by_a_message_waits_for_the_next_turn)
{
    ASSERT_OK(event_loop_post(loop, post_again, "a"));

    ASSERT_OK(event_loop_turn(loop, 0));
    assert_string_equal(order, "a");
    ASSERT_OK(event_loop_turn(loop, 0));

    assert_string_equal(order, "az");
}

static void stop_loop(void *context)
{
    note(context);
    event_loop_stop(loop);
}

static void post_and_stop(void *argument)
{
    (void)argument;
    ASSERT_OK(event_loop_post(loop, note, "m"));
    ASSERT_OK(event_loop_post(loop, stop_loop, "s"));
}

TEST(another_thread_posts_and_stops_a_running_loop)
{
    struct thread *thread = NULL;
    ASSERT_OK(thread_create(ROLE_TEST, 0, post_and_stop, NULL, &thread));

    ASSERT_OK(event_loop_run(loop));
    thread_join(thread);

    assert_string_equal(order, "ms");
}

TEST(a_stop_before_the_run_ends_it_at_once_and_only_that_one)
{
    event_loop_stop(loop);

    ASSERT_OK(event_loop_run(loop));
    ASSERT_OK(event_loop_post(loop, stop_loop, "s"));
    ASSERT_OK(event_loop_run(loop));

    assert_string_equal(order, "s");
}

TEST(destroying_frees_sources_and_unread_messages)
{
    struct event_source *timer = NULL;
    ASSERT_OK(event_loop_timer(loop, note, "t", &timer));
    ASSERT_OK(event_loop_post(loop, note, "m"));

    event_loop_destroy(loop);
    event_loop_destroy(NULL);
    loop = NULL;

    assert_string_equal(order, "");
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, make_loop, destroy_loop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(a_ready_fd_calls_back_each_turn),
        LOOP_TEST(changed_interest_takes_effect),
        LOOP_TEST(a_hang_up_is_reported_without_being_asked_for),
        LOOP_TEST(a_source_removed_in_the_same_turn_is_not_called),
        LOOP_TEST(a_file_that_can_not_be_watched_is_an_error),
        LOOP_TEST(timers_fire_once_in_the_order_of_their_deadlines),
        LOOP_TEST(a_deadline_in_the_past_fires_at_once),
        LOOP_TEST(a_disarmed_timer_stays_silent),
        LOOP_TEST(messages_run_in_the_order_of_posting),
        LOOP_TEST(a_message_posted_by_a_message_waits_for_the_next_turn),
        LOOP_TEST(another_thread_posts_and_stops_a_running_loop),
        LOOP_TEST(a_stop_before_the_run_ends_it_at_once_and_only_that_one),
        LOOP_TEST(destroying_frees_sources_and_unread_messages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
