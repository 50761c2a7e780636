/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_memory.h - snapshots in memory files, for tests, and on demand one with a full disk.
 */
#ifndef SNAPSHOT_STORE_MEMORY_H
#define SNAPSHOT_STORE_MEMORY_H

#include <stdint.h>

#include "snapshot/snapshot_store.h"

ERR_RESULT store_memory_create(struct snapshot_store **out_store);

/* From here on a part of this kind has room for nothing: writing it fails with ENOSPC. */
void store_memory_fill_up(struct snapshot_store *store, enum snapshot_part part);
/* From here on publishing fails, before the commit point. */
void store_memory_refuse_publish(struct snapshot_store *store);
/* Drafts that were begun and neither published nor closed. */
unsigned store_memory_draft_count(struct snapshot_store *store);
/* A published part, writable, to damage it. The fd is the store's. */
int store_memory_part_fd(struct snapshot_store *store, const char *id, enum snapshot_part part);

#endif
