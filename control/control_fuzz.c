/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_fuzz.c - any bytes sent to a machine's control socket: it must go on serving others.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "control/control_server.h"

/* What fits into the socket's buffer at once: nothing here may wait. */
#define INPUT_BYTES_MAX 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void handle(struct control_handler *handler, struct control_call *call,
                   const Ferry__ControlRequest *request, int *fds, size_t fd_count)
{
    (void)handler;
    (void)fds;
    (void)fd_count;
    if (request->call_case == FERRY__CONTROL_REQUEST__CALL_STATUS)
        control_call_done(call);
    else
        control_call_fail(call, err_new(ERR_INVALID, "call %d", (int)request->call_case));
}

static void closed(struct control_handler *handler, unsigned connection)
{
    (void)handler;
    (void)connection;
}

static const struct control_handler_ops fuzz_ops = {.handle = handle, .closed = closed};

static void must(struct err *err)
{
    ASSERT(err == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct control_handler handler = {.ops = &fuzz_ops};
    struct event_loop *loop;
    struct control_server *server;
    int ends[2];

    log_set_level(LOG_ERROR);
    must(event_loop_create(&loop));
    must(control_server_create(loop, &handler, &server));
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    must(control_server_adopt(server, ends[1]));
    ASSERT(write(ends[0], data, MIN(len, INPUT_BYTES_MAX)) >= 0);
    must(event_loop_turn(loop, 0));
    close(ends[0]);
    for (int i = 0; i < 4; i++)
        must(event_loop_turn(loop, 0));
    control_server_destroy(server);
    event_loop_destroy(loop);
    return 0;
}
