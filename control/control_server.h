/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_server.h - the machine's side of the control protocol.
 *
 * The server owns the sockets, the connections and the framing; a handler does the work. One
 * request of a connection is handled at a time. Thread: loop only.
 */
#ifndef CONTROL_CONTROL_SERVER_H
#define CONTROL_CONTROL_SERVER_H

#include <stddef.h>

#include "base/err.h"
#include "proto/control.pb-c.h"

struct event_loop;
struct control_server;
struct control_call; /* one request being answered */

struct control_handler;
struct control_handler_ops {
    /* Answers the call now or later with exactly one control_call_ function. The request is valid
     * until then. `fds` came with it and are closed when this returns; the handler takes those that
     * it keeps by setting them to -1. Hello never arrives here: the server answers it. */
    void (*handle)(struct control_handler *handler, struct control_call *call,
                   const Ferry__ControlRequest *request, int *fds, size_t fd_count);
    /* A greeted connection closed: undo what it held. Its unanswered call may be answered or
     * forgotten: the answer goes nowhere. Not called by control_server_destroy. */
    void (*closed)(struct control_handler *handler, unsigned connection);
};

struct control_handler {
    const struct control_handler_ops *ops;
};

/* The loop and handler must outlive the server. */
ERR_RESULT control_server_create(struct event_loop *loop, struct control_handler *handler,
                                 struct control_server **out_server);
void control_server_destroy(struct control_server *server); /* unlinks the socket; accepts NULL */

/* Listens under the machine's name. ERR_STATE when a machine of that name runs; a socket left by
 * one that died is replaced. */
ERR_RESULT control_server_listen(struct control_server *server, const char *name);
/* Serves a connected socket, which the server owns from here on, also on error. The peer must be
 * the same user or root. */
ERR_RESULT control_server_adopt(struct control_server *server, int fd);

/* Answers. `call` is gone afterwards. fds are sent and stay the caller's. `reply` needs only its
 * result filled. An error is freed. Thread: loop only. */
void control_call_done(struct control_call *call);
void control_call_reply(struct control_call *call, Ferry__ControlReply *reply, const int *fds,
                        size_t fd_count);
void control_call_fail(struct control_call *call, struct err *err);
unsigned control_call_connection(const struct control_call *call); /* never used again; not 0 */
const char *control_call_program(const struct control_call *call); /* from its hello, or "" */

#endif
