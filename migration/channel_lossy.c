/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_lossy.c - see channel_lossy.h. Tested by: move_test.c.
 */
#include "migration/channel_lossy.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/checked_math.h"

struct lossy_channel {
    struct channel base;
    struct channel *next; /* owned */
    uint8_t drop_tag;     /* 0: none */
    bool is_dead;         /* sends vanish */
};

static struct lossy_channel *lossy_of(struct channel *channel)
{
    return CONTAINER_OF(channel, struct lossy_channel, base);
}

static struct err *lossy_send(struct channel *channel, const struct iovec *parts, size_t count)
{
    struct lossy_channel *self = lossy_of(channel);
    const uint8_t *head = parts[0].iov_base;

    /* A frame shorter than 128 bytes: its length is one byte, its body's tag the third. */
    if (self->drop_tag != 0 && parts[0].iov_len > 2 && head[2] == self->drop_tag)
        self->is_dead = true;
    if (self->is_dead)
        return NULL;
    return channel_send(self->next, parts, count);
}

static struct err *lossy_flush(struct channel *channel)
{
    return channel_flush(lossy_of(channel)->next);
}

static struct err *lossy_receive(struct channel *channel, void *to, size_t len_min, size_t len_max,
                                 size_t *out_len)
{
    return channel_receive(lossy_of(channel)->next, to, len_min, len_max, out_len);
}

static struct err *lossy_wait(struct channel *channel, uint64_t deadline_ns, bool *out_ready)
{
    return channel_wait(lossy_of(channel)->next, deadline_ns, out_ready);
}

static void lossy_interrupt(struct channel *channel)
{
    channel_interrupt(lossy_of(channel)->next);
}

static uint64_t lossy_blocked_ns(struct channel *channel)
{
    return channel_blocked_ns(lossy_of(channel)->next);
}

static void lossy_destroy(struct channel *channel)
{
    channel_destroy(lossy_of(channel)->next);
    free(lossy_of(channel));
}

static const struct channel_ops lossy_channel_ops = {
    .name = "lossy",
    .send = lossy_send,
    .flush = lossy_flush,
    .receive = lossy_receive,
    .wait = lossy_wait,
    .interrupt = lossy_interrupt,
    .blocked_ns = lossy_blocked_ns,
    .destroy = lossy_destroy,
};

struct channel *channel_lossy_create(struct channel *next, uint8_t drop_tag)
{
    struct lossy_channel *self = calloc(1, sizeof(*self));

    ASSERT(self != NULL);
    self->base = *next;
    self->base.ops = &lossy_channel_ops;
    self->next = next;
    self->drop_tag = drop_tag;
    return &self->base;
}
