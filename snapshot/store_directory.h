/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_directory.h - snapshots as folders STORE/MACHINE/ID of a file system.
 */
#ifndef SNAPSHOT_STORE_DIRECTORY_H
#define SNAPSHOT_STORE_DIRECTORY_H

#include "snapshot/snapshot_store.h"

/* The folder is created when something is saved; it need not exist. */
ERR_RESULT store_directory_open(const char *path, struct snapshot_store **out_store);
/* One that has to be there: else ERR_NOT_FOUND. */
ERR_RESULT store_directory_open_existing(const char *path, struct snapshot_store **out_store);

#endif
