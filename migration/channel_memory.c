/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_memory.c - see channel_memory.h. Tested by: move_test.c. Two rings under one lock.
 */
#include "migration/channel_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"

#define RING_BYTES (256u * KIB)

struct ring {
    uint8_t *data; /* owned */
    uint64_t written;
    uint64_t read;
    uint64_t corrupt_at; /* UINT64_MAX: nowhere */
};

struct memory_pair {
    struct lock lock;
    struct lock_condition changed;
    struct ring rings[2]; /* rings[n] carries what end n sends */
    bool is_closed[2];
    bool is_interrupted[2];
    uint32_t silence_ms;
};

struct memory_channel {
    struct channel base;
    struct memory_pair *pair; /* owned by the end that is destroyed last */
    unsigned end;
    uint64_t blocked_ns;
};

static struct memory_channel *self_of(struct channel *channel)
{
    return CONTAINER_OF(channel, struct memory_channel, base);
}

/* Waits for a change; an error when there will be none. The lock is held, under names that the
 * compiler does not see to be one. */
static struct err *wait_change(struct memory_channel *self, uint64_t deadline_ns) LOCK_UNCHECKED
{
    struct memory_pair *pair = self->pair;

    if (pair->is_interrupted[self->end])
        return err_new(ERR_CANCELLED, "the connection to '%s' was given up", self->base.peer);
    if (lock_condition_wait_until(&pair->changed, &pair->lock, deadline_ns) == 0 &&
        clock_monotonic_ns() >= deadline_ns)
        return err_new(ERR_TIMEOUT, "'%s' has been silent for %u s", self->base.peer,
                       pair->silence_ms / 1000);
    return NULL;
}

static uint64_t silence_deadline(const struct memory_pair *pair)
{
    return clock_monotonic_ns() + (uint64_t)pair->silence_ms * NS_PER_MS;
}

static void ring_put(struct ring *ring, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++, ring->written++)
        ring->data[ring->written % RING_BYTES] =
            (uint8_t)(data[i] ^ (ring->written == ring->corrupt_at ? 1 : 0));
}

static struct err *send_part_locked(struct memory_channel *self, const uint8_t *data, size_t len)
{
    struct memory_pair *pair = self->pair;
    struct ring *ring = &pair->rings[self->end];

    while (len > 0) {
        size_t room = (size_t)(RING_BYTES - (ring->written - ring->read));
        size_t count = MIN(room, len);

        if (pair->is_closed[!self->end])
            return err_new(ERR_IO, "'%s' closed the connection", self->base.peer);
        if (count == 0) {
            uint64_t started = clock_monotonic_ns();
            TRY(wait_change(self, silence_deadline(pair)));
            self->blocked_ns += clock_monotonic_ns() - started;
            continue;
        }
        ring_put(ring, data, count);
        data += count;
        len -= count;
        lock_condition_broadcast(&pair->changed);
    }
    return NULL;
}

static struct err *memory_send(struct channel *channel, const struct iovec *parts, size_t count)
{
    struct memory_channel *self = self_of(channel);
    struct err *err = NULL;

    lock_acquire(&self->pair->lock);
    for (size_t i = 0; i < count && err == NULL; i++)
        err = send_part_locked(self, parts[i].iov_base, parts[i].iov_len);
    lock_release(&self->pair->lock);
    return err;
}

static struct err *memory_flush(struct channel *channel)
{
    (void)channel;
    return NULL;
}

static struct err *receive_locked(struct memory_channel *self, uint8_t *to, size_t len_min,
                                  size_t len_max, size_t *out_len)
{
    struct memory_pair *pair = self->pair;
    struct ring *ring = &pair->rings[!self->end];
    size_t done = 0;

    for (;;) {
        for (; done < len_max && ring->read < ring->written; done++, ring->read++)
            to[done] = ring->data[ring->read % RING_BYTES];
        lock_condition_broadcast(&pair->changed);
        if (done >= len_min) {
            *out_len = done;
            return NULL;
        }
        if (pair->is_closed[!self->end])
            return err_new(ERR_IO, "'%s' closed the connection", self->base.peer);
        TRY(wait_change(self, silence_deadline(pair)));
    }
}

static struct err *memory_receive(struct channel *channel, void *to, size_t len_min, size_t len_max,
                                  size_t *out_len)
{
    struct memory_channel *self = self_of(channel);

    lock_acquire(&self->pair->lock);
    struct err *err = receive_locked(self, to, len_min, len_max, out_len);
    lock_release(&self->pair->lock);
    return err;
}

static struct err *memory_wait(struct channel *channel, uint64_t deadline_ns, bool *out_ready)
{
    struct memory_channel *self = self_of(channel);
    struct memory_pair *pair = self->pair;
    struct ring *ring = &pair->rings[!self->end];
    struct err *err = NULL;

    lock_acquire(&pair->lock);
    while (ring->read == ring->written && !pair->is_closed[!self->end] && err == NULL &&
           clock_monotonic_ns() < deadline_ns) {
        err = wait_change(self, deadline_ns);
        if (err != NULL && err_kind(err) == ERR_TIMEOUT) {
            err_free(err);
            err = NULL;
        }
    }
    *out_ready = ring->read != ring->written || pair->is_closed[!self->end];
    lock_release(&pair->lock);
    return err;
}

static void memory_interrupt(struct channel *channel)
{
    struct memory_channel *self = self_of(channel);

    lock_acquire(&self->pair->lock);
    self->pair->is_interrupted[self->end] = true;
    lock_condition_broadcast(&self->pair->changed);
    lock_release(&self->pair->lock);
}

static uint64_t memory_blocked_ns(struct channel *channel)
{
    struct memory_channel *self = self_of(channel);

    lock_acquire(&self->pair->lock);
    uint64_t blocked_ns = self->blocked_ns;
    lock_release(&self->pair->lock);
    return blocked_ns;
}

static void pair_destroy(struct memory_pair *pair)
{
    lock_condition_finish(&pair->changed);
    lock_finish(&pair->lock);
    free(pair->rings[0].data);
    free(pair->rings[1].data);
    free(pair);
}

static void memory_destroy(struct channel *channel)
{
    struct memory_channel *self = self_of(channel);
    struct memory_pair *pair = self->pair;

    lock_acquire(&pair->lock);
    pair->is_closed[self->end] = true;
    bool is_last = pair->is_closed[!self->end];
    lock_condition_broadcast(&pair->changed);
    lock_release(&pair->lock);
    if (is_last)
        pair_destroy(pair);
    free(self);
}

void channel_memory_corrupt(struct channel *channel, uint64_t offset)
{
    struct memory_channel *self = self_of(channel);

    lock_acquire(&self->pair->lock);
    self->pair->rings[self->end].corrupt_at = offset;
    lock_release(&self->pair->lock);
}

static const struct channel_ops memory_channel_ops = {
    .name = "memory",
    .send = memory_send,
    .flush = memory_flush,
    .receive = memory_receive,
    .wait = memory_wait,
    .interrupt = memory_interrupt,
    .blocked_ns = memory_blocked_ns,
    .destroy = memory_destroy,
};

static struct memory_channel *end_create(struct memory_pair *pair, unsigned end, const char *peer)
{
    struct memory_channel *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return NULL;
    self->base.ops = &memory_channel_ops;
    memcpy(self->base.peer, peer, strlen(peer) + 1);
    self->pair = pair;
    self->end = end;
    return self;
}

struct err *channel_memory_pair(uint32_t silence_ms, struct channel **out_a, struct channel **out_b)
{
    struct memory_pair *pair = calloc(1, sizeof(*pair));
    if (pair == NULL)
        return err_new(ERR_NO_MEMORY, "memory channel");

    lock_init(&pair->lock, LOCK_CHANNEL);
    lock_condition_init(&pair->changed);
    pair->silence_ms = silence_ms;
    struct memory_channel *a = end_create(pair, 0, "the target");
    struct memory_channel *b = end_create(pair, 1, "the source");
    for (size_t i = 0; i < 2; i++) {
        pair->rings[i].data = malloc(RING_BYTES);
        pair->rings[i].corrupt_at = UINT64_MAX;
    }
    if (a == NULL || b == NULL || pair->rings[0].data == NULL || pair->rings[1].data == NULL) {
        free(a);
        free(b);
        pair_destroy(pair);
        return err_new(ERR_NO_MEMORY, "memory channel");
    }
    *out_a = &a->base;
    *out_b = &b->base;
    return NULL;
}
