/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_capture.h - copies a running machine's memory, round by round, into a snapshot.
 *
 * Thread: belongs to one; may block.
 */
#ifndef SNAPSHOT_MEMORY_CAPTURE_H
#define SNAPSHOT_MEMORY_CAPTURE_H

#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

struct control_client;
struct lent_memory;
struct memory_capture;
struct memory_writer;

/* All arguments are borrowed. */
ERR_RESULT memory_capture_create(struct control_client *client, struct lent_memory *memory,
                                 struct memory_writer *writer, struct memory_capture **out_capture);
void memory_capture_destroy(struct memory_capture *capture); /* accepts NULL */

/* Writes everything that is staged or dirty to the store, at its speed. Changes from a page's copy
 * on are found by the next harvest. */
ERR_RESULT memory_capture_write_round(struct memory_capture *capture);
/* Asks the machine what has changed; the result is how many pages are dirty. */
ERR_RESULT memory_capture_harvest(struct memory_capture *capture, uint64_t *out_dirty_pages);
/* Copies the dirty pages, as harvested, to RAM, and nothing to the store. In a pause this is the
 * residual. */
ERR_RESULT memory_capture_stage_round(struct memory_capture *capture);
/* Makes room for so many pages in advance, to keep page faults out of the pause. */
void memory_capture_prepare(struct memory_capture *capture, uint64_t pages);
/* Writes what is staged. */
ERR_RESULT memory_capture_flush(struct memory_capture *capture);

uint64_t memory_capture_staged_pages(const struct memory_capture *capture);
/* Of the latest stage rounds, or a guess before the first. */
uint64_t memory_capture_copy_ns_per_page(const struct memory_capture *capture);

DEFINE_CLEANUP(memory_capture, struct memory_capture, memory_capture_destroy)

#endif
