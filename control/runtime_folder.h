/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runtime_folder.h - where machines put their sockets, and where state that must last is kept.
 *
 * Runtime: $FERRY_RUNTIME_DIR, else $XDG_RUNTIME_DIR/ferry, else /run/ferry for root, else
 * /tmp/ferry-UID; mode 0700. State: $FERRY_STATE_DIR, else /var/lib/ferry for root, else
 * $XDG_STATE_HOME/ferry, else ~/.local/state/ferry. Configuration (certificates):
 * $FERRY_CONFIG_DIR, else /etc/ferry for root, else $XDG_CONFIG_HOME/ferry, else ~/.config/ferry.
 * Both are created when asked for. free() the results. Thread: any.
 */
#ifndef CONTROL_RUNTIME_FOLDER_H
#define CONTROL_RUNTIME_FOLDER_H

#include <stddef.h>

#include "base/err.h"

ERR_RESULT runtime_folder(char **out_path);
ERR_RESULT state_folder(const char *below, char **out_path); /* below: "snapshots", or NULL */
ERR_RESULT config_folder(char **out_path);

/* A name becomes part of paths: 1..63 of [A-Za-z0-9._-], not starting with '.' or '-'. */
ERR_RESULT machine_name_check(const char *name);
ERR_RESULT machine_socket_path(const char *name, char **out_path);
/* The names that have a socket, in order; free each and the array. Some may be dead. */
ERR_RESULT machine_names(char ***out_names, size_t *out_count);

#endif
