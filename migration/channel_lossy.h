/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_lossy.h - a channel that goes dead instead of sending a frame of one kind.
 *
 * For tests. What comes from the other side still arrives.
 */
#ifndef MIGRATION_CHANNEL_LOSSY_H
#define MIGRATION_CHANNEL_LOSSY_H

#include <stdint.h>

#include "migration/channel.h"

/* Takes `next`. `drop_tag` is the first byte of the body of the frames that are not to pass; 0:
 * none. */
struct channel *channel_lossy_create(struct channel *next, uint8_t drop_tag);

#endif
