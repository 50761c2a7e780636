/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_server_test.c - a server and a client, each on its thread, and clients that misbehave.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/event_loop.h"
#include "base/limits.h"
#include "base/thread.h"
#include "base/unit_test.h"
#include "control/control_client.h"
#include "control/control_server.h"

static char folder[] = "/tmp/control-server-XXXXXX";

/* Answers power_button; holds the answer of reset back until the next power_button. */
struct served {
    struct control_handler handler;
    struct event_loop *loop;
    struct control_server *server;
    struct thread *thread;
    struct control_call *held;
    int kept_fd;
    atomic_uint closed_count;
    atomic_uint program_is_test;
    int adopted_fd;
};

static void handle(struct control_handler *handler, struct control_call *call,
                   const Ferry__ControlRequest *request, int *fds, size_t fd_count)
{
    struct served *served = CONTAINER_OF(handler, struct served, handler);
    if (strcmp(control_call_program(call), "test") == 0)
        served->program_is_test = 1;
    switch (request->call_case) {
    case FERRY__CONTROL_REQUEST__CALL_RESET: served->held = call; return;
    case FERRY__CONTROL_REQUEST__CALL_POWER_BUTTON:
        if (served->held != NULL)
            control_call_done(served->held);
        served->held = NULL;
        control_call_done(call);
        return;
    case FERRY__CONTROL_REQUEST__CALL_MEMORY_SOURCE:
        if (fd_count > 0) {
            served->kept_fd = fds[0];
            fds[0] = -1;
        }
        control_call_done(call);
        return;
    case FERRY__CONTROL_REQUEST__CALL_CONSOLE: {
        Ferry__ControlNothing nothing = FERRY__CONTROL_NOTHING__INIT;
        Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
        reply.result_case = FERRY__CONTROL_REPLY__RESULT_DONE;
        reply.done = &nothing;
        control_call_reply(call, &reply, &served->kept_fd, 1);
        return;
    }
    default: control_call_fail(call, err_new(ERR_STATE, "this machine does little"));
    }
}

static void closed(struct control_handler *handler, unsigned connection)
{
    struct served *served = CONTAINER_OF(handler, struct served, handler);
    (void)connection;
    atomic_fetch_add(&served->closed_count, 1);
}

static const struct control_handler_ops ops = {.handle = handle, .closed = closed};

static void serve(void *context)
{
    struct served *served = context;
    ASSERT_OK(event_loop_run(served->loop));
}

static void served_start(struct served *served, const char *name)
{
    *served = (struct served){.handler.ops = &ops, .kept_fd = -1};
    ASSERT_OK(event_loop_create(&served->loop));
    ASSERT_OK(control_server_create(served->loop, &served->handler, &served->server));
    ASSERT_OK(control_server_listen(served->server, name));
    ASSERT_OK(thread_create(ROLE_LOOP, 0, serve, served, &served->thread));
}

static void served_stop(struct served *served)
{
    event_loop_stop(served->loop);
    thread_join(served->thread);
    control_server_destroy(served->server);
    event_loop_destroy(served->loop);
    if (served->kept_fd >= 0)
        close(served->kept_fd);
}

static void wait_until_closed(struct served *served, unsigned count)
{
    while (atomic_load(&served->closed_count) < count)
        (void)sched_yield();
}

TEST(calls_are_answered_with_results_errors_and_descriptors)
{
    struct served served;
    served_start(&served, "m");
    struct control_client *client;
    ASSERT_OK(control_client_connect("m", "test", &client));

    ASSERT_OK(control_power_button(client));
    struct err *err = control_check_disks(client);
    assert_non_null(err);
    assert_string_equal(err_message(err), "this machine does little");
    assert_fails(err, ERR_STATE);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    ASSERT_OK(control_memory_source(client, 0, &zero, 1));
    close(zero);
    int console;
    ASSERT_OK(control_console(client, &console));
    char byte = 1;
    assert_int_equal(read(console, &byte, 1), 1);
    assert_int_equal(byte, 0);

    close(console);
    assert_true(served.program_is_test);
    control_client_close(client);
    wait_until_closed(&served, 1);
    served_stop(&served);
}

TEST(a_machine_that_does_not_run_is_not_found)
{
    struct control_client *client;
    assert_fails(control_client_connect("nobody", "test", &client), ERR_NOT_FOUND);
}

TEST(a_name_is_taken_while_its_machine_lives_and_free_afterwards)
{
    struct served first, second;
    served_start(&first, "m");
    second = (struct served){.handler.ops = &ops};
    ASSERT_OK(event_loop_create(&second.loop));
    ASSERT_OK(control_server_create(second.loop, &second.handler, &second.server));

    assert_fails(control_server_listen(second.server, "m"), ERR_STATE);
    served_stop(&first);
    ASSERT_OK(control_server_listen(second.server, "m"));

    control_server_destroy(second.server);
    event_loop_destroy(second.loop);
}

TEST(the_socket_of_a_dead_machine_is_replaced)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/dead.sock", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);

    struct served served;
    served_start(&served, "dead");
    struct control_client *client;
    ASSERT_OK(control_client_connect("dead", "test", &client));
    control_client_close(client);
    served_stop(&served);
}

static void adopt(void *context)
{
    struct served *served = context;
    ASSERT_OK(control_server_adopt(served->server, served->adopted_fd));
}

/* A connection without the client's manners. */
static int raw_connection(struct served *served)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    served->adopted_fd = ends[1];
    ASSERT_OK(event_loop_post(served->loop, adopt, served));
    return ends[0];
}

static int greeted_connection(struct served *served)
{
    int fd = raw_connection(served);
    struct control_client *client;
    ASSERT_OK(control_client_attach(dup(fd), "test", &client));
    control_client_close(client);
    return fd;
}

TEST(garbage_closes_the_connection_and_only_that)
{
    struct served served;
    served_start(&served, "m");
    int raw = greeted_connection(&served);
    struct control_client *client;
    ASSERT_OK(control_client_connect("m", "test", &client));

    uint8_t garbage[64];
    memset(garbage, 0xff, sizeof(garbage));
    assert_int_equal(write(raw, garbage, sizeof(garbage)), sizeof(garbage));
    wait_until_closed(&served, 1);
    uint8_t byte;
    assert_true(read(raw, &byte, 1) <= 0);

    ASSERT_OK(control_power_button(client));
    control_client_close(client);
    close(raw);
    served_stop(&served);
}

TEST(an_answer_to_a_connection_that_closed_goes_nowhere)
{
    struct served served;
    served_start(&served, "m");
    int raw = greeted_connection(&served);
    static const uint8_t reset[] = {5, 0x08, 9, 0x82, 0x01, 0}; /* id 9, reset {} */
    assert_int_equal(write(raw, reset, sizeof(reset)), sizeof(reset));
    close(raw);
    wait_until_closed(&served, 1);

    struct control_client *client;
    ASSERT_OK(control_client_connect("m", "test", &client));
    ASSERT_OK(control_power_button(client)); /* answers the held reset first */
    control_client_close(client);
    served_stop(&served);
}

TEST(one_client_too_many_is_told_so)
{
    struct served served;
    served_start(&served, "m");
    struct control_client *clients[CONTROL_CLIENTS_MAX];
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        ASSERT_OK(control_client_connect("m", "test", &clients[i]));

    struct control_client *extra;
    struct err *err = control_client_connect("m", "test", &extra);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "control connections already"));
    assert_fails(err, ERR_STATE);

    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        control_client_close(clients[i]);
    served_stop(&served);
}

TEST(requests_before_a_hello_are_refused)
{
    struct served served;
    served_start(&served, "m");
    int raw = raw_connection(&served);
    static const uint8_t reset[] = {5, 0x08, 9, 0x82, 0x01, 0};
    assert_int_equal(write(raw, reset, sizeof(reset)), sizeof(reset));

    uint8_t reply[128];
    ssize_t len = read(raw, reply, sizeof(reply));
    assert_true(len > 0);
    assert_non_null(memmem(reply, (size_t)len, "hello", 5));
    close(raw);
    served_stop(&served);
}

static int set_up(void **unused)
{
    (void)unused;
    return mkdtemp(folder) == NULL ? -1 : setenv("FERRY_RUNTIME_DIR", folder, 1);
}

static int tear_down(void **unused)
{
    (void)unused;
    return rmdir(folder); /* every socket was removed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_answered_with_results_errors_and_descriptors),
        cmocka_unit_test(a_machine_that_does_not_run_is_not_found),
        cmocka_unit_test(a_name_is_taken_while_its_machine_lives_and_free_afterwards),
        cmocka_unit_test(the_socket_of_a_dead_machine_is_replaced),
        cmocka_unit_test(garbage_closes_the_connection_and_only_that),
        cmocka_unit_test(an_answer_to_a_connection_that_closed_goes_nowhere),
        cmocka_unit_test(one_client_too_many_is_told_so),
        cmocka_unit_test(requests_before_a_hello_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
