/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue.h - the device's side of a split virtqueue (virtio 1.2, 2.7).
 *
 * Thread: one at a time; a device with several puts a lock around all of its queue's calls.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTQUEUE_H
#define VMM_DEVICES_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "proto/device_state.pb-c.h"
#include "vmm/memory/guest_memory.h"

struct virtqueue {
    struct guest_memory *memory;
    uint16_t size_max;
    /* Set by the driver. */
    uint16_t size; /* a power of two, at most size_max */
    bool is_enabled;
    bool has_event_index;
    bool has_indirect;
    gpa_t descriptors;
    gpa_t available;
    gpa_t used;
    /* Progress: free-running 16-bit counts, as in the rings. */
    uint16_t next_available;
    uint16_t next_used; /* filled in; the driver knows those that were published */
    uint16_t signalled;
    bool is_signalled_valid;
    bool is_broken; /* the driver broke the rules: nothing moves until it resets the device */
};

enum virtqueue_result { VIRTQUEUE_EMPTY, VIRTQUEUE_CHAIN, VIRTQUEUE_BROKEN };

struct virtqueue_piece {
    gpa_t address;
    uint32_t len;
};

/* A request's buffers, copied out of the guest's descriptors and checked: all of it is RAM. */
struct virtqueue_chain {
    uint16_t head;
    uint16_t readable_count;
    uint16_t writable_count;
    uint64_t readable_bytes;
    uint64_t writable_bytes;
    struct virtqueue_piece pieces[VIRTIO_REQUEST_IOVS]; /* readable ones, then writable ones */
};

void virtqueue_init(struct virtqueue *queue, struct guest_memory *memory, uint16_t size_max);
void virtqueue_reset(struct virtqueue *queue);
/* False when addresses and size can not be a queue: misaligned, or not all RAM. */
bool virtqueue_enable(struct virtqueue *queue);

/* Takes the next request. */
enum virtqueue_result virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *out_chain);
/* Puts back the requests popped last, and forgets what was filled in for as many of them. */
void virtqueue_unpop(struct virtqueue *queue, uint16_t popped, uint16_t filled);
/* Puts any requests back that were popped and not filled in: they are the next to be popped. */
void virtqueue_put_back(struct virtqueue *queue, const uint16_t *heads, uint16_t count);
bool virtqueue_has_available(struct virtqueue *queue);

/* Gives a request back; the driver sees it after virtqueue_publish. */
void virtqueue_fill(struct virtqueue *queue, uint16_t head, uint32_t written);
/* True when the driver wants an interrupt for what was published. */
bool virtqueue_publish(struct virtqueue *queue);

/* Asks the driver for a notification. True: there is a request already, look again. */
bool virtqueue_arm(struct virtqueue *queue);
/* The same for a device that needs more requests at once than wait now. True: more have come. */
bool virtqueue_arm_for_more(struct virtqueue *queue);
/* Notifications are not needed: the queue is being looked at. */
void virtqueue_disarm(struct virtqueue *queue);

/* Copies between a chain's bytes, counted from its first readable (writable) one, and ours.
 * False when the chain is too short. Writes are marked dirty. */
bool virtqueue_chain_read(struct virtqueue *queue, const struct virtqueue_chain *chain,
                          uint64_t offset, void *out_data, size_t len);
bool virtqueue_chain_write(struct virtqueue *queue, const struct virtqueue_chain *chain,
                           uint64_t offset, const void *data, size_t len);
/* Lends `len` bytes of the chain's readable or writable part; the number of iovs used, 0 when they
 * do not suffice. A writer calls virtqueue_chain_dirty before it fills the request in. */
enum virtqueue_part { VIRTQUEUE_READABLE, VIRTQUEUE_WRITABLE };
struct virtqueue_span {
    enum virtqueue_part part;
    uint64_t offset;
    uint64_t len;
};
int virtqueue_chain_span(struct virtqueue *queue, const struct virtqueue_chain *chain,
                         struct virtqueue_span span, struct iovec *out_iovs, int iovs_max);
void virtqueue_chain_dirty(struct virtqueue *queue, const struct virtqueue_chain *chain,
                           uint64_t offset, uint64_t len);

void virtqueue_save(const struct virtqueue *queue, Ferry__VirtqueueState *state);
ERR_RESULT virtqueue_validate(const struct virtqueue *queue, const Ferry__VirtqueueState *state);
void virtqueue_apply(struct virtqueue *queue, const Ferry__VirtqueueState *state);

#endif
