/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_memory.h - two channels that are each other's far end, inside one process.
 *
 * For tests and for trying things: no network, no certificates. Destroying one end closes the
 * other, which still receives what was sent before.
 */
#ifndef MIGRATION_CHANNEL_MEMORY_H
#define MIGRATION_CHANNEL_MEMORY_H

#include "migration/channel.h"

ERR_RESULT channel_memory_pair(uint32_t silence_ms, struct channel **out_a, struct channel **out_b);

/* Flips one bit of the byte that is the `offset`th that this end sends. */
void channel_memory_corrupt(struct channel *channel, uint64_t offset);

#endif
