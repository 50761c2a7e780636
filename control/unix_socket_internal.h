/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unix_socket_internal.h - named Unix sockets of machines: connect, and listen in place of a dead
 * one. Thread: any.
 */
#ifndef CONTROL_UNIX_SOCKET_INTERNAL_H
#define CONTROL_UNIX_SOCKET_INTERNAL_H

#include <stdbool.h>

#include "base/err.h"

/* *out_is_alive false, and no fd: nobody listens there. */
ERR_RESULT unix_socket_connect(const char *path, int *out_fd, bool *out_is_alive);

/* ERR_STATE when somebody listens there; the socket of one that died is replaced. */
ERR_RESULT unix_socket_listen(const char *path, int *out_fd);

/* Is the other end the same user, or root? ERR_DENIED when not. */
ERR_RESULT unix_socket_check_peer(int fd);

#endif
