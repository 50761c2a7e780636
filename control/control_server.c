/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_server.c - connections to a machine, one request at a time each.
 *
 * A connection reads only when it has nothing to answer and nothing to send: a client that does
 * not read its replies is not heard either, and needs no more memory than one message each way.
 *
 *     idle --request--> answering --control_call_*--> sending --all sent--> idle
 *
 * Connections are closed from the loop's callback only, never inside a handler's call: what goes
 * wrong elsewhere shuts the socket down, and the loop reports that as a hang-up.
 */
#include "control/control_server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/event_loop.h"
#include "base/limits.h"
#include "base/log.h"
#include "control/control_stream_internal.h"
#include "control/runtime_folder.h"
#include "control/unix_socket_internal.h"

#define CONTROL_PROTOCOL  1u
#define PROGRAM_BYTES_MAX 63u

struct connection {
    struct control_server *server;
    struct control_stream stream;
    struct event_source *source; /* owned */
    unsigned id;
    char program[PROGRAM_BYTES_MAX + 1];
    bool is_greeted;
    bool is_dispatching;       /* serve_requests is on the stack */
    struct control_call *call; /* unanswered; owned */
};

struct control_call {
    struct connection *connection;  /* NULL: closed before the answer */
    Ferry__ControlRequest *request; /* owned */
    struct control_call *next_orphan;
    struct control_server *server;
};

struct control_server {
    struct event_loop *loop;
    struct control_handler *handler;
    char *name;                                          /* owned; NULL before listen */
    char *path;                                          /* owned */
    int listen_fd;                                       /* owned */
    struct event_source *listen_source;                  /* owned */
    struct connection *connections[CONTROL_CLIENTS_MAX]; /* owned */
    struct control_call *orphans; /* of closed connections; owned until answered */
    unsigned next_connection;
};

static void call_free(struct control_call *call)
{
    if (call->request != NULL)
        ferry__control_request__free_unpacked(call->request, NULL);
    free(call);
}

static void connection_free(struct connection *connection)
{
    if (connection == NULL)
        return;
    if (connection->call != NULL)
        call_free(connection->call);
    event_source_remove(connection->source);
    control_stream_finish(&connection->stream);
    free(connection);
}
DEFINE_CLEANUP(connection, struct connection, connection_free)

/* Its handler may still answer a call of it: that answer goes nowhere. */
static void connection_close(struct connection *connection)
{
    struct control_server *server = connection->server;
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (server->connections[i] == connection)
            server->connections[i] = NULL;
    if (connection->call != NULL) {
        connection->call->connection = NULL;
        connection->call->next_orphan = server->orphans;
        server->orphans = TAKE_PTR(connection->call);
    }
    unsigned id = connection->id;
    bool is_greeted = connection->is_greeted;
    connection_free(connection);
    if (is_greeted)
        server->handler->ops->closed(server->handler, id);
}

/* Reported as a hang-up by the loop, which closes the connection. */
static void connection_break(struct connection *connection, struct err *err)
{
    log_err(LOG_WARNING, "control connection dropped", err);
    (void)shutdown(connection->stream.fd, SHUT_RDWR);
}

static void connection_watch(struct connection *connection)
{
    uint32_t events = EPOLLIN;
    if (control_stream_is_sending(&connection->stream))
        events = EPOLLOUT;
    else if (connection->call != NULL)
        events = 0;
    event_source_set_events(connection->source, events);
}

static void connection_send(struct connection *connection, const Ferry__ControlReply *reply,
                            const int *fds, size_t fd_count)
{
    struct err *err = control_stream_put(&connection->stream, &reply->base, fds, fd_count);
    if (err == NULL)
        err = control_stream_flush(&connection->stream);
    if (err != NULL)
        connection_break(connection, err);
}

static void answer_hello(struct control_call *call, const Ferry__ControlHello *hello)
{
    struct connection *connection = call->connection;
    if (hello->protocol != CONTROL_PROTOCOL) {
        control_call_fail(call,
                          err_new(ERR_INCOMPATIBLE, "control protocol %u; this machine speaks %u",
                                  hello->protocol, CONTROL_PROTOCOL));
        return;
    }
    connection->is_greeted = true;
    (void)snprintf(connection->program, sizeof(connection->program), "%s", hello->program);

    Ferry__ControlHelloReply result = FERRY__CONTROL_HELLO_REPLY__INIT;
    result.protocol = CONTROL_PROTOCOL;
    if (connection->server->name != NULL)
        result.name = connection->server->name;
    result.pid = (uint32_t)getpid();
    result.version = (char *)FERRY_VERSION;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_HELLO;
    reply.hello = &result;
    control_call_reply(call, &reply, NULL, 0);
}

/* Takes the request over. */
static struct err *handle_request(struct connection *connection, Ferry__ControlRequest *request)
{
    int fds[CONTROL_FDS_MAX];
    size_t fd_count = request->fd_count;
    struct control_call *call = calloc(1, sizeof(*call));
    struct err *err = call == NULL ? err_new(ERR_NO_MEMORY, "control request")
                                   : control_stream_take_fds(&connection->stream, fd_count, fds);
    if (err != NULL) {
        free(call);
        ferry__control_request__free_unpacked(request, NULL);
        return err;
    }

    call->connection = connection;
    call->server = connection->server;
    call->request = request;
    connection->call = call;
    struct control_handler *handler = connection->server->handler;
    if (request->call_case == FERRY__CONTROL_REQUEST__CALL_HELLO)
        answer_hello(call, request->hello);
    else if (!connection->is_greeted)
        control_call_fail(call, err_new(ERR_STATE, "the first request must be a hello"));
    else
        handler->ops->handle(handler, call, request, fds, fd_count);
    for (size_t i = 0; i < fd_count; i++)
        cleanup_fd(&fds[i]);
    return NULL;
}

static bool is_idle(const struct connection *connection)
{
    return connection->call == NULL && !control_stream_is_sending(&connection->stream);
}

/* Handles what has arrived, until an answer takes time. */
static void serve_requests(struct connection *connection)
{
    connection->is_dispatching = true;
    while (is_idle(connection)) {
        ProtobufCMessage *message;
        struct err *err =
            control_stream_next(&connection->stream, &ferry__control_request__descriptor, &message);
        if (err == NULL && message == NULL)
            break;
        if (err == NULL)
            err = handle_request(connection, (Ferry__ControlRequest *)message);
        if (err != NULL) {
            connection_break(connection, err);
            break;
        }
    }
    connection->is_dispatching = false;
    connection_watch(connection);
}

static void connection_ready(void *context, uint32_t events)
{
    struct connection *connection = context;
    bool is_closed = false;
    struct err *err = NULL;

    if (control_stream_is_sending(&connection->stream))
        err = control_stream_flush(&connection->stream);
    if (err == NULL && is_idle(connection))
        err = control_stream_receive(&connection->stream, &is_closed);
    else if ((events & (EPOLLHUP | EPOLLERR)) != 0)
        is_closed = true;
    if (err != NULL)
        log_err(LOG_WARNING, "control connection dropped", err);
    if (err != NULL || is_closed) {
        connection_close(connection);
        return;
    }
    serve_requests(connection);
}

static struct err *find_slot(struct control_server *server, size_t *out_slot)
{
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (server->connections[i] == NULL) {
            *out_slot = i;
            return NULL;
        }
    return err_new(ERR_STATE, "the machine has %u control connections already",
                   CONTROL_CLIENTS_MAX);
}

/* Tells a peer that is not served why; what does not fit at once is not sent. */
static void refuse(struct control_stream *stream, const struct err *err)
{
    Ferry__ControlError error = FERRY__CONTROL_ERROR__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    error.kind = (char *)err_kind_name(err_kind(err));
    error.message = (char *)err_message(err);
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_ERROR;
    reply.error = &error;

    struct err *failure = control_stream_put(stream, &reply.base, NULL, 0);
    if (failure == NULL)
        failure = control_stream_flush(stream);
    err_free(failure);
}

struct err *control_server_adopt(struct control_server *server, int fd)
{
    CLEANUP(cleanup_connection) struct connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        close(fd);
        return err_new(ERR_NO_MEMORY, "control connection");
    }
    control_stream_init(&connection->stream, fd);
    connection->server = server;

    size_t slot;
    struct err *err = unix_socket_check_peer(fd);
    if (err == NULL)
        err = find_slot(server, &slot);
    if (err == NULL)
        err = event_loop_watch(server->loop, fd, EPOLLIN, connection_ready, connection,
                               &connection->source);
    if (err != NULL) {
        refuse(&connection->stream, err);
        return err;
    }
    connection->id = ++server->next_connection;
    server->connections[slot] = TAKE_PTR(connection);
    return NULL;
}

static void accept_ready(void *context, uint32_t events)
{
    struct control_server *server = context;
    (void)events;

    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct err *err = control_server_adopt(server, fd);
    if (err != NULL)
        log_err(LOG_WARNING, "control connection refused", err);
}

struct err *control_server_create(struct event_loop *loop, struct control_handler *handler,
                                  struct control_server **out_server)
{
    ASSERT(handler->ops->handle != NULL && handler->ops->closed != NULL);
    struct control_server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return err_new(ERR_NO_MEMORY, "control server");
    server->loop = loop;
    server->handler = handler;
    server->listen_fd = -1;
    *out_server = server;
    return NULL;
}

void control_server_destroy(struct control_server *server)
{
    if (server == NULL)
        return;
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        connection_free(server->connections[i]);
    while (server->orphans != NULL) {
        struct control_call *orphan = server->orphans;
        server->orphans = orphan->next_orphan;
        call_free(orphan);
    }
    event_source_remove(server->listen_source);
    if (server->listen_fd >= 0)
        (void)unlink(server->path);
    cleanup_fd(&server->listen_fd);
    free(server->path);
    free(server->name);
    free(server);
}

struct err *control_server_listen(struct control_server *server, const char *name)
{
    ASSERT(server->listen_fd < 0);
    CLEANUP(cleanup_free) char *path = NULL;
    TRY(machine_socket_path(name, &path));
    CLEANUP(cleanup_free) char *name_copy = strdup(name);
    if (name_copy == NULL)
        return err_new(ERR_NO_MEMORY, "control socket");
    CLEANUP(cleanup_fd) int fd = -1;
    struct err *err = unix_socket_listen(path, &fd);
    if (err != NULL)
        return err_wrap(err, "control socket of machine '%s'", name);

    err = event_loop_watch(server->loop, fd, EPOLLIN, accept_ready, server, &server->listen_source);
    if (err != NULL) {
        (void)unlink(path);
        return err;
    }
    server->listen_fd = TAKE_FD(fd);
    server->path = TAKE_PTR(path);
    server->name = TAKE_PTR(name_copy);
    return NULL;
}

static void orphan_forget(struct control_call *call)
{
    struct control_call **link = &call->server->orphans;
    while (*link != call)
        link = &(*link)->next_orphan;
    *link = call->next_orphan;
    call_free(call);
}

void control_call_reply(struct control_call *call, Ferry__ControlReply *reply, const int *fds,
                        size_t fd_count)
{
    struct connection *connection = call->connection;
    if (connection == NULL) {
        orphan_forget(call);
        return;
    }
    ASSERT(connection->call == call);
    reply->id = call->request->id;
    reply->fd_count = (uint32_t)fd_count;
    connection_send(connection, reply, fds, fd_count);
    connection->call = NULL;
    call_free(call);
    if (!connection->is_dispatching)
        serve_requests(connection);
}

void control_call_done(struct control_call *call)
{
    Ferry__ControlNothing nothing = FERRY__CONTROL_NOTHING__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_DONE;
    reply.done = &nothing;
    control_call_reply(call, &reply, NULL, 0);
}

void control_call_fail(struct control_call *call, struct err *err)
{
    Ferry__ControlError error = FERRY__CONTROL_ERROR__INIT;
    Ferry__ControlReply reply = FERRY__CONTROL_REPLY__INIT;
    error.kind = (char *)err_kind_name(err_kind(err));
    error.message = (char *)err_message(err);
    reply.result_case = FERRY__CONTROL_REPLY__RESULT_ERROR;
    reply.error = &error;
    control_call_reply(call, &reply, NULL, 0);
    err_free(err);
}

unsigned control_call_connection(const struct control_call *call)
{
    return call->connection == NULL ? 0 : call->connection->id;
}

const char *control_call_program(const struct control_call *call)
{
    return call->connection == NULL ? "" : call->connection->program;
}
