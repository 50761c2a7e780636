/* SPDX-License-Identifier: Apache-2.0 */
/*
 * taken_guest.h - for tests: a pretended machine to save, and a snapshot of one read back and
 * compared, byte for byte, with what the guest's memory was when it was cut.
 */
#ifndef SNAPSHOT_TESTING_TAKEN_GUEST_H
#define SNAPSHOT_TESTING_TAKEN_GUEST_H

#include <stdint.h>

#include "base/err.h"

struct control_client;
struct machine_fake;
struct snapshot_store;

#define TAKEN_GUEST_NAME "web"

/* Two regions of memory, partly holes, and a guest that keeps writing. */
ERR_RESULT taken_guest_start(const char *disk_path, struct machine_fake **out_machine,
                             struct control_client **out_client);

/* Reads all pages of the snapshot through its index, and checks them against its state. */
ERR_RESULT taken_guest_check(struct snapshot_store *store, const char *id, uint64_t *out_steps);

/* Pages whose place is in the snapshot's own memory part. */
ERR_RESULT taken_guest_own_pages(struct snapshot_store *store, const char *id, uint64_t *out_pages);

#endif
