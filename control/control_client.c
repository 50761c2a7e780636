/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_client.c - one connection to a machine: connect, greet, call.
 *
 * After a time-out or a malformed reply the two sides disagree on what comes next, so the
 * connection is broken: later calls fail at once with ERR_STATE. Tested by: control_server_test.c
 */
#include "control/control_client.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "control/control_stream_internal.h"
#include "control/runtime_folder.h"
#include "control/unix_socket_internal.h"

/* A pause drains disks and a load fills memory: the machine's own limits are far below this. */
#define CALL_MS_MAX      60000u
#define CONTROL_PROTOCOL 1u

struct control_client {
    struct control_stream stream;
    uint64_t next_id;
    bool is_broken;
    char machine[MACHINE_NAME_MAX + 1];
    uint32_t pid;
};

DEFINE_CLEANUP(client, struct control_client, control_client_close)

static void reply_free(Ferry__ControlReply *reply)
{
    if (reply != NULL)
        ferry__control_reply__free_unpacked(reply, NULL);
}
DEFINE_CLEANUP(reply, Ferry__ControlReply, reply_free)

static struct err *error_of_reply(const Ferry__ControlError *error)
{
    enum err_kind kind = ERR_INVALID;
    for (enum err_kind k = ERR_INVALID; k <= ERR_DENIED; k++)
        if (strcmp(err_kind_name(k), error->kind) == 0)
            kind = k;
    return err_new(kind, "%s", error->message);
}

static struct err *wait_for(struct control_client *client, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns >= deadline_ns)
            return err_new(ERR_TIMEOUT, "the machine does not answer");
        struct pollfd poll_fd = {.fd = client->stream.fd, .events = events};
        int ready = poll(&poll_fd, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        if (ready > 0)
            return NULL;
        if (ready < 0 && errno != EINTR)
            return err_errno(errno, "wait for the machine");
    }
}

static struct err *send_request(struct control_client *client, const Ferry__ControlRequest *request,
                                const int *fds, size_t fd_count, uint64_t deadline_ns)
{
    TRY(control_stream_put(&client->stream, &request->base, fds, fd_count));
    TRY(control_stream_flush(&client->stream));
    while (control_stream_is_sending(&client->stream)) {
        TRY(wait_for(client, POLLOUT, deadline_ns));
        TRY(control_stream_flush(&client->stream));
    }
    return NULL;
}

static struct err *receive_reply(struct control_client *client, uint64_t deadline_ns,
                                 Ferry__ControlReply **out_reply)
{
    for (;;) {
        ProtobufCMessage *message;
        TRY(control_stream_next(&client->stream, &ferry__control_reply__descriptor, &message));
        if (message != NULL) {
            *out_reply = (Ferry__ControlReply *)message;
            return NULL;
        }

        bool is_closed;
        TRY(wait_for(client, POLLIN, deadline_ns));
        TRY(control_stream_receive(&client->stream, &is_closed));
        if (is_closed)
            return err_new(ERR_IO, "the machine's process closed the connection");
    }
}

static struct err *take_reply_fds(struct control_client *client, const Ferry__ControlReply *reply,
                                  struct control_fds *out_fds)
{
    size_t room = out_fds == NULL ? 0 : ARRAY_COUNT(out_fds->fds);
    if (reply->fd_count > room)
        return err_new(ERR_INVALID, "reply with %u descriptors; expected at most %zu",
                       reply->fd_count, room);
    if (out_fds == NULL)
        return NULL;
    TRY(control_stream_take_fds(&client->stream, reply->fd_count, out_fds->fds));
    out_fds->count = reply->fd_count;
    return NULL;
}

static struct err *exchange(struct control_client *client, const Ferry__ControlRequest *request,
                            const int *send_fds, struct control_fds *out_fds,
                            Ferry__ControlReply **out_reply)
{
    uint64_t deadline_ns = clock_monotonic_ns() + (uint64_t)CALL_MS_MAX * NS_PER_MS;
    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;

    /* A machine that refuses the connection says why and closes: its reply explains a send that
     * failed better than the failure does. */
    struct err *sent = send_request(client, request, send_fds, request->fd_count, deadline_ns);
    struct err *received = receive_reply(client, deadline_ns, &reply);
    if (sent != NULL && received != NULL) {
        err_free(received);
        return sent;
    }
    err_free(sent);
    if (received != NULL)
        return received;
    /* Reply 0 is about the connection, not about a request. */
    if (reply->id != request->id && reply->id != 0)
        return err_new(ERR_INVALID, "reply %" PRIu64 " to request %" PRIu64, reply->id,
                       request->id);
    TRY(take_reply_fds(client, reply, out_fds));
    *out_reply = TAKE_PTR(reply);
    return NULL;
}

struct err *control_client_call(struct control_client *client, Ferry__ControlRequest *request,
                                const int *send_fds, size_t send_fd_count,
                                struct control_fds *out_fds, Ferry__ControlReply **out_reply)
{
    if (client->is_broken)
        return err_new(ERR_STATE, "the connection to the machine is broken");
    if (send_fd_count > CONTROL_FDS_MAX)
        return err_new(ERR_INVALID, "%zu descriptors in one call; the most is %u", send_fd_count,
                       CONTROL_FDS_MAX);

    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    request->id = client->next_id++;
    request->fd_count = (uint32_t)send_fd_count;
    struct err *err = exchange(client, request, send_fds, out_fds, &reply);
    if (err != NULL) {
        client->is_broken = true;
        return err;
    }
    if (reply->result_case == FERRY__CONTROL_REPLY__RESULT_ERROR)
        return error_of_reply(reply->error);
    *out_reply = TAKE_PTR(reply);
    return NULL;
}

static struct err *greet(struct control_client *client, const char *program)
{
    Ferry__ControlHello hello = FERRY__CONTROL_HELLO__INIT;
    hello.protocol = CONTROL_PROTOCOL;
    hello.program = (char *)program;
    Ferry__ControlRequest request = FERRY__CONTROL_REQUEST__INIT;
    request.call_case = FERRY__CONTROL_REQUEST__CALL_HELLO;
    request.hello = &hello;

    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    TRY(control_client_call(client, &request, NULL, 0, NULL, &reply));
    if (reply->result_case != FERRY__CONTROL_REPLY__RESULT_HELLO)
        return err_new(ERR_INVALID, "the machine answers a greeting with something else");
    if (reply->hello->protocol != CONTROL_PROTOCOL)
        return err_new(ERR_INCOMPATIBLE, "the machine speaks control protocol %u, this program %u",
                       reply->hello->protocol, CONTROL_PROTOCOL);
    if (reply->hello->name[0] != '\0')
        TRY(machine_name_check(reply->hello->name));
    (void)snprintf(client->machine, sizeof(client->machine), "%s", reply->hello->name);
    client->pid = reply->hello->pid;
    return NULL;
}

struct err *control_client_attach(int fd, const char *program, struct control_client **out_client)
{
    CLEANUP(cleanup_client) struct control_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        close(fd);
        return err_new(ERR_NO_MEMORY, "connection to a machine");
    }
    control_stream_init(&client->stream, fd);
    client->next_id = 1;
    TRY(greet(client, program));
    *out_client = TAKE_PTR(client);
    return NULL;
}

struct err *control_client_connect(const char *name, const char *program,
                                   struct control_client **out_client)
{
    CLEANUP(cleanup_free) char *path = NULL;
    TRY(machine_socket_path(name, &path));
    CLEANUP(cleanup_fd) int fd = -1;
    bool is_alive;
    struct err *err = unix_socket_connect(path, &fd, &is_alive);
    if (err == NULL && !is_alive)
        return err_new(ERR_NOT_FOUND,
                       "no machine '%s' is running; vm-ctl list shows those that are", name);
    if (err == NULL)
        err = control_client_attach(TAKE_FD(fd), program, out_client);
    return err == NULL ? NULL : err_wrap(err, "machine '%s'", name);
}

void control_client_close(struct control_client *client)
{
    if (client == NULL)
        return;
    control_stream_finish(&client->stream);
    free(client);
}

int control_client_fd(const struct control_client *client)
{
    return client->stream.fd;
}

const char *control_client_machine(const struct control_client *client)
{
    return client->machine;
}

uint32_t control_client_pid(const struct control_client *client)
{
    return client->pid;
}
