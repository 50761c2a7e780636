/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_receivers.h - the data connections of a session, target side, each with its thread.
 *
 * A connection proves itself before it may write: its hello must carry the session's id, and its
 * certificate must be the one that opened the session. One that does not is dropped and changes
 * nothing. Thread: one at a time, but add and interrupt: any.
 */
#ifndef MIGRATION_PAGE_RECEIVERS_H
#define MIGRATION_PAGE_RECEIVERS_H

#include <stddef.h>
#include <stdint.h>

#include "migration/channel.h"
#include "migration/session_id.h"
#include "migration/timeouts.h"

/* A connection that is still to become a channel: a socket before its TLS handshake. */
struct incoming;
struct incoming_ops {
    struct err *(*open)(struct incoming *incoming, struct channel **out_channel);
    void (*destroy)(struct incoming *incoming);
};
struct incoming {
    const struct incoming_ops *ops;
};

struct page_receivers_config {
    uint8_t *memory;
    uint64_t page_count;
    size_t channel_count;
    struct session_id session;
    uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES];
    const struct timeouts *timeouts;
    void (*failed)(void *context); /* once, on a receiver's thread */
    void *context;
};

struct page_receivers;

ERR_RESULT page_receivers_create(const struct page_receivers_config *config,
                                 struct page_receivers **out_receivers);
void page_receivers_destroy(struct page_receivers *receivers); /* interrupts them; accepts NULL */

/* Takes the connection, also on failure. */
ERR_RESULT page_receivers_add(struct page_receivers *receivers, struct incoming *incoming);
/* Until every channel has brought its last frame. */
ERR_RESULT page_receivers_wait_end(struct page_receivers *receivers, uint32_t timeout_ms);
void page_receivers_interrupt(struct page_receivers *receivers);
/* A copy of the first failure, or NULL. Thread: any. */
struct err *page_receivers_failure(struct page_receivers *receivers);

#endif
