/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h - an ordered, reliable stream of bytes to another host.
 *
 * Thread: one sender and one receiver at a time; interrupt and blocked_ns: any. No call waits for
 * ever: a transfer that stands still for the silence timeout fails with ERR_TIMEOUT, an interrupted
 * channel with ERR_CANCELLED, a lost one with ERR_IO. After any error the channel is of no use.
 */
#ifndef MIGRATION_CHANNEL_H
#define MIGRATION_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define CHANNEL_FINGERPRINT_BYTES 32u

struct channel;

struct channel_ops {
    const char *name;
    /* Takes all bytes; they may stay with us until flush. */
    struct err *(*send)(struct channel *channel, const struct iovec *parts, size_t count);
    struct err *(*flush)(struct channel *channel);
    /* At least len_min bytes, at most len_max. */
    struct err *(*receive)(struct channel *channel, void *to, size_t len_min, size_t len_max,
                           size_t *out_len);
    /* Until there is something to receive or the monotonic clock reaches deadline_ns. */
    struct err *(*wait)(struct channel *channel, uint64_t deadline_ns, bool *out_ready);
    /* Makes every wait, present and future, fail. */
    void (*interrupt)(struct channel *channel);
    /* How long sends have waited for the other side to take bytes. */
    uint64_t (*blocked_ns)(struct channel *channel);
    void (*destroy)(struct channel *channel);
};

struct channel {
    const struct channel_ops *ops;
    char peer[128];                                 /* for messages: "host-b" */
    uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES]; /* SHA-256 of the peer's certificate */
};

static inline struct err *channel_send(struct channel *channel, const struct iovec *parts,
                                       size_t count)
{
    return channel->ops->send(channel, parts, count);
}

static inline struct err *channel_flush(struct channel *channel)
{
    return channel->ops->flush(channel);
}

static inline struct err *channel_receive(struct channel *channel, void *to, size_t len_min,
                                          size_t len_max, size_t *out_len)
{
    return channel->ops->receive(channel, to, len_min, len_max, out_len);
}

static inline struct err *channel_wait(struct channel *channel, uint64_t deadline_ns,
                                       bool *out_ready)
{
    return channel->ops->wait(channel, deadline_ns, out_ready);
}

static inline void channel_interrupt(struct channel *channel)
{
    channel->ops->interrupt(channel);
}

static inline uint64_t channel_blocked_ns(struct channel *channel)
{
    return channel->ops->blocked_ns(channel);
}

static inline void channel_destroy(struct channel *channel) /* accepts NULL */
{
    if (channel != NULL)
        channel->ops->destroy(channel);
}

static inline void cleanup_channel(struct channel **channel)
{
    channel_destroy(*channel);
}

#endif
