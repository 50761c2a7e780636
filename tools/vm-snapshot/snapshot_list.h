/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_list.h - prints the snapshots of a store: as a list, as a tree, one in detail.
 *
 * `machine` NULL means all machines. With json the output is JSON. A damaged manifest is shown as
 * that and does not hide the others.
 */
#ifndef TOOLS_SNAPSHOT_LIST_H
#define TOOLS_SNAPSHOT_LIST_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

struct snapshot_name;
struct snapshot_store;

ERR_RESULT snapshot_list_print(struct snapshot_store *store, const char *machine, bool json,
                               FILE *out);
ERR_RESULT snapshot_tree_print(struct snapshot_store *store, const char *machine, bool json,
                               FILE *out);
ERR_RESULT snapshot_show_print(struct snapshot_store *store, const struct snapshot_name *name,
                               bool json, FILE *out);

#endif
