/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_senders.h - the data connections of a session, source side, each with its thread.
 *
 * A block of 64 pages always takes the same connection (its number modulo their count), so that an
 * older copy of a page can not overtake a newer one, and no round has to wait for the one before to
 * arrive. Thread: one at a time, but for the functions that say otherwise.
 */
#ifndef MIGRATION_PAGE_SENDERS_H
#define MIGRATION_PAGE_SENDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migration/frame_stream.h"
#include "proto/page_encoder.h"

struct page_senders;

/* Takes the streams, also on failure. Pages are read from `memory`. `failed(context)` runs on a
 * sender's thread when the first connection fails. bytes_per_second 0: as fast as it goes. */
struct page_senders_config {
    const uint8_t *memory;
    struct frame_stream **streams;
    size_t stream_count;
    uint64_t bytes_per_second;
    void (*failed)(void *context);
    void *context;
};
ERR_RESULT page_senders_create(const struct page_senders_config *config,
                               struct page_senders **out_senders);
void page_senders_destroy(struct page_senders *senders); /* interrupts them first; accepts NULL */

/* Pages block * 64 + n for each set bit n; waits while that connection's queue is full. */
void page_senders_add(struct page_senders *senders, uint64_t block, uint64_t bits);
/* Ends a round: until all that was added is in the target's memory. */
ERR_RESULT page_senders_flush(struct page_senders *senders);
/* Tells the receivers that this was all, and flushes. Nothing may be added afterwards. */
ERR_RESULT page_senders_end(struct page_senders *senders);

/* Wakes and fails every wait. Thread: any. */
void page_senders_interrupt(struct page_senders *senders);
/* Thread: any. */
struct page_counts page_senders_counts(struct page_senders *senders);
/* A copy of the first failure, or NULL. Thread: any. */
struct err *page_senders_failure(struct page_senders *senders);

#endif
