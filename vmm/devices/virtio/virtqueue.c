/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue.c - the device's side of a split virtqueue.
 *
 * How it works. Three tables in guest memory: descriptors (buffers, linked into chains), the
 * available ring (chains that the driver hands over) and the used ring (chains that we give back).
 * Indexes run freely through 16 bits; a ring slot is index mod size.
 *
 *     driver:  writes descriptors, avail.ring[i], then avail.idx  (release)
 *     pop:     reads avail.idx (acquire), the slot, then copies the whole chain; from then on the
 *              guest's descriptors are not looked at again
 *     fill:    writes used.ring[next_used]
 *     publish: writes used.idx (release); the driver sees all that was filled
 *
 * Notifications are thinned out both ways by event indexes: arm() writes "notify me when avail.idx
 * passes n", then looks once more, with a full barrier between, or a request that was added in
 * between would wait for ever. publish() likewise, with the driver's wish in used_event.
 *
 * What the driver writes is hostile until checked: indexes, chains that loop or are too long,
 * addresses outside RAM. Any breach sets is_broken, and the device asks for a reset.
 *
 * A stopped device has no request in flight: next_used == next_available, which is why the saved
 * state needs no list of requests.
 */
#include "vmm/devices/virtio/virtqueue.h"

#include <stdatomic.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "vmm/devices/state_message.h"

#define DESCRIPTOR_BYTES    16u
#define DESCRIPTOR_NEXT     0x1u
#define DESCRIPTOR_WRITE    0x2u
#define DESCRIPTOR_INDIRECT 0x4u

/* Rings: flags, idx, then entries, then the other side's event index. */
#define RING_INDEX        2u
#define RING_ENTRIES      4u
#define AVAILABLE_BYTES   2u
#define USED_BYTES        8u
#define FLAG_NO_INTERRUPT 0x1u
#define FLAG_NO_NOTIFY    0x1u

struct descriptor {
    uint64_t address;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

/* Where a chain is being read: the queue's own table, or an indirect one. */
struct table {
    uint64_t address;
    uint32_t count;
    bool is_indirect;
};

void virtqueue_init(struct virtqueue *queue, struct guest_memory *memory, uint16_t size_max)
{
    ASSERT(is_power_of_two(size_max) && size_max <= VIRTQUEUE_SIZE_MAX);
    *queue = (struct virtqueue){.memory = memory, .size_max = size_max, .size = size_max};
}

void virtqueue_reset(struct virtqueue *queue)
{
    virtqueue_init(queue, queue->memory, queue->size_max);
}

static bool is_ram(struct guest_memory *memory, uint64_t address, uint64_t len)
{
    struct iovec iovs[MACHINE_REGIONS_MAX];

    return guest_span(memory, gpa(address), len, iovs, MACHINE_REGIONS_MAX) > 0;
}

static bool rings_are_good(struct guest_memory *memory, uint16_t size, uint64_t descriptors,
                           uint64_t available, uint64_t used)
{
    /* virtio 1.2, 2.7: alignments of 16, 2 and 4. */
    return descriptors % 16 == 0 && available % 2 == 0 && used % 4 == 0 &&
           is_ram(memory, descriptors, (uint64_t)size * DESCRIPTOR_BYTES) &&
           is_ram(memory, available, RING_ENTRIES + (uint64_t)size * AVAILABLE_BYTES + 2) &&
           is_ram(memory, used, RING_ENTRIES + (uint64_t)size * USED_BYTES + 2);
}

bool virtqueue_enable(struct virtqueue *queue)
{
    queue->is_enabled = rings_are_good(queue->memory, queue->size, queue->descriptors.value,
                                       queue->available.value, queue->used.value);
    return queue->is_enabled;
}

/* The rings were RAM when the queue was enabled, and RAM does not go away. */
static uint16_t load16(struct virtqueue *queue, uint64_t address)
{
    uint16_t value = 0;

    if (!guest_load_acquire16(queue->memory, gpa(address), &value))
        queue->is_broken = true;
    return value;
}

static void store16(struct virtqueue *queue, uint64_t address, uint16_t value)
{
    if (!guest_store_release16(queue->memory, gpa(address), value))
        queue->is_broken = true;
}

static uint64_t used_event_address(const struct virtqueue *queue)
{
    return queue->available.value + RING_ENTRIES + (uint64_t)queue->size * AVAILABLE_BYTES;
}

static uint64_t available_event_address(const struct virtqueue *queue)
{
    return queue->used.value + RING_ENTRIES + (uint64_t)queue->size * USED_BYTES;
}

/* How many requests wait. More than the queue holds is a broken index. */
static uint16_t available_count(struct virtqueue *queue)
{
    if (!queue->is_enabled || queue->is_broken)
        return 0;
    uint16_t index = load16(queue, queue->available.value + RING_INDEX);
    uint16_t count = (uint16_t)(index - queue->next_available);
    if (count > queue->size)
        queue->is_broken = true;
    return queue->is_broken ? 0 : count;
}

bool virtqueue_has_available(struct virtqueue *queue)
{
    return available_count(queue) > 0;
}

static bool descriptor_read(struct virtqueue *queue, const struct table *table, uint32_t index,
                            struct descriptor *out_descriptor)
{
    uint8_t bytes[DESCRIPTOR_BYTES];

    if (index >= table->count ||
        !guest_read(queue->memory, gpa(table->address + (uint64_t)index * DESCRIPTOR_BYTES), bytes,
                    sizeof(bytes)))
        return false;
    struct reader in = reader_of(bytes, sizeof(bytes));
    out_descriptor->address = reader_le64(&in);
    out_descriptor->len = reader_le32(&in);
    out_descriptor->flags = reader_le16(&in);
    out_descriptor->next = reader_le16(&in);
    return true;
}

/* virtio 1.2, 2.7.5.3.1: "A driver MUST NOT set both VIRTQ_DESC_F_INDIRECT and VIRTQ_DESC_F_NEXT";
 * tables do not nest. */
static bool enter_indirect(struct virtqueue *queue, const struct descriptor *descriptor,
                           struct table *table)
{
    if (!queue->has_indirect || table->is_indirect || (descriptor->flags & DESCRIPTOR_NEXT) != 0 ||
        descriptor->len == 0 || descriptor->len % DESCRIPTOR_BYTES != 0 ||
        !is_ram(queue->memory, descriptor->address, descriptor->len))
        return false;
    *table = (struct table){.address = descriptor->address,
                            .count = descriptor->len / DESCRIPTOR_BYTES,
                            .is_indirect = true};
    return true;
}

static bool piece_add(struct virtqueue *queue, const struct descriptor *descriptor,
                      struct virtqueue_chain *chain)
{
    size_t count = (size_t)chain->readable_count + chain->writable_count;
    bool is_writable = (descriptor->flags & DESCRIPTOR_WRITE) != 0;

    /* virtio 1.2, 2.7.4.2: "The driver MUST place any device-writable descriptor elements after
     * any device-readable descriptor elements." */
    if (count == VIRTIO_REQUEST_IOVS || (!is_writable && chain->writable_count > 0) ||
        !is_ram(queue->memory, descriptor->address, descriptor->len))
        return false;
    chain->pieces[count] =
        (struct virtqueue_piece){.address = gpa(descriptor->address), .len = descriptor->len};
    if (is_writable) {
        chain->writable_count++;
        chain->writable_bytes += descriptor->len;
    } else {
        chain->readable_count++;
        chain->readable_bytes += descriptor->len;
    }
    return true;
}

/* The bound on pieces bounds the walk too: each step adds one, or enters the one indirect table. */
static bool chain_read(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    struct table table = {.address = queue->descriptors.value, .count = queue->size};
    struct descriptor descriptor = {.flags = DESCRIPTOR_NEXT, .next = head};

    while ((descriptor.flags & DESCRIPTOR_NEXT) != 0) {
        if (!descriptor_read(queue, &table, descriptor.next, &descriptor))
            return false;
        if ((descriptor.flags & DESCRIPTOR_INDIRECT) != 0) {
            if (!enter_indirect(queue, &descriptor, &table))
                return false;
            descriptor = (struct descriptor){.flags = DESCRIPTOR_NEXT, .next = 0};
        } else if (!piece_add(queue, &descriptor, chain)) {
            return false;
        }
    }
    return true;
}

enum virtqueue_result virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *out_chain)
{
    if (available_count(queue) == 0)
        return queue->is_broken ? VIRTQUEUE_BROKEN : VIRTQUEUE_EMPTY;

    uint16_t slot = queue->next_available & (uint16_t)(queue->size - 1);
    uint16_t head =
        load16(queue, queue->available.value + RING_ENTRIES + (uint64_t)slot * AVAILABLE_BYTES);
    out_chain->head = head;
    out_chain->readable_count = 0;
    out_chain->writable_count = 0;
    out_chain->readable_bytes = 0;
    out_chain->writable_bytes = 0;
    if (!chain_read(queue, head, out_chain))
        queue->is_broken = true;
    if (queue->is_broken)
        return VIRTQUEUE_BROKEN;

    queue->next_available++;
    return VIRTQUEUE_CHAIN;
}

void virtqueue_unpop(struct virtqueue *queue, uint16_t popped, uint16_t filled)
{
    ASSERT(filled <= popped);
    queue->next_available = (uint16_t)(queue->next_available - popped);
    queue->next_used = (uint16_t)(queue->next_used - filled);
}

/* The slots of the last requests popped lie behind the driver's back: it fills a slot again only
 * when as many requests as the ring has slots are on their way, which are less those popped and
 * not filled in. So these can be listed there anew, whichever they were. */
void virtqueue_put_back(struct virtqueue *queue, const uint16_t *heads, uint16_t count)
{
    ASSERT(count <= (uint16_t)(queue->next_available - queue->next_used));
    queue->next_available = (uint16_t)(queue->next_available - count);
    for (uint16_t i = 0; i < count; i++) {
        uint16_t slot = (uint16_t)(queue->next_available + i) & (uint16_t)(queue->size - 1);
        store16(queue, queue->available.value + RING_ENTRIES + (uint64_t)slot * AVAILABLE_BYTES,
                heads[i]);
    }
}

void virtqueue_fill(struct virtqueue *queue, uint16_t head, uint32_t written)
{
    uint16_t slot = queue->next_used & (uint16_t)(queue->size - 1);
    uint8_t entry[USED_BYTES];
    struct writer out = writer_of(entry, sizeof(entry));

    writer_le32(&out, head);
    writer_le32(&out, written);
    if (!guest_write(queue->memory,
                     gpa(queue->used.value + RING_ENTRIES + (uint64_t)slot * USED_BYTES), entry,
                     sizeof(entry)))
        queue->is_broken = true;
    queue->next_used++;
}

/* Did the index step over `event` when it went from old to new? (virtio 1.2, 2.7.7.2) */
static bool has_passed(uint16_t event, uint16_t new_index, uint16_t old_index)
{
    return (uint16_t)(new_index - event - 1) < (uint16_t)(new_index - old_index);
}

bool virtqueue_publish(struct virtqueue *queue)
{
    store16(queue, queue->used.value + RING_INDEX, queue->next_used);
    /* The index is to be visible before the driver's wish is read; pairs with the driver's barrier
     * between writing its wish and looking at the index. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!queue->has_event_index)
        return (load16(queue, queue->available.value) & FLAG_NO_INTERRUPT) == 0;

    uint16_t event = load16(queue, used_event_address(queue));
    bool is_wanted =
        !queue->is_signalled_valid || has_passed(event, queue->next_used, queue->signalled);
    queue->signalled = queue->next_used;
    queue->is_signalled_valid = true;
    return is_wanted;
}

/* Asks to be notified when the driver passes `index`. True: it has already. */
static bool arm_at(struct virtqueue *queue, uint16_t index)
{
    if (queue->has_event_index)
        store16(queue, available_event_address(queue), index);
    else
        store16(queue, queue->used.value, 0);
    /* Our wish is to be visible before the index is read again; pairs with the driver's barrier
     * between publishing a request and reading the wish. */
    atomic_thread_fence(memory_order_seq_cst);
    return available_count(queue) > (uint16_t)(index - queue->next_available);
}

bool virtqueue_arm(struct virtqueue *queue)
{
    return queue->is_enabled && !queue->is_broken && arm_at(queue, queue->next_available);
}

bool virtqueue_arm_for_more(struct virtqueue *queue)
{
    if (!queue->is_enabled || queue->is_broken)
        return false;
    return arm_at(queue, (uint16_t)(queue->next_available + available_count(queue)));
}

/* With event indexes the last wish lies behind and does not come true by itself. */
void virtqueue_disarm(struct virtqueue *queue)
{
    if (queue->is_enabled && !queue->is_broken && !queue->has_event_index)
        store16(queue, queue->used.value, FLAG_NO_NOTIFY);
}

static size_t part_start(const struct virtqueue_chain *chain, enum virtqueue_part part)
{
    return part == VIRTQUEUE_READABLE ? 0 : chain->readable_count;
}

static size_t part_end(const struct virtqueue_chain *chain, enum virtqueue_part part)
{
    return part == VIRTQUEUE_READABLE ? chain->readable_count
                                      : (size_t)chain->readable_count + chain->writable_count;
}

/* A walk over the pieces of a span; yields the part of each piece that lies in it. */
struct span_walk {
    const struct virtqueue_chain *chain;
    size_t at;
    size_t end;
    uint64_t skip;
    uint64_t left;
};

static struct span_walk span_walk(const struct virtqueue_chain *chain, struct virtqueue_span span)
{
    return (struct span_walk){.chain = chain,
                              .at = part_start(chain, span.part),
                              .end = part_end(chain, span.part),
                              .skip = span.offset,
                              .left = span.len};
}

static bool span_next(struct span_walk *walk, struct virtqueue_piece *out_piece)
{
    while (walk->left > 0 && walk->at < walk->end) {
        const struct virtqueue_piece *piece = &walk->chain->pieces[walk->at++];
        if (walk->skip >= piece->len) {
            walk->skip -= piece->len;
            continue;
        }
        uint64_t len = MIN(piece->len - walk->skip, walk->left);
        *out_piece = (struct virtqueue_piece){.address = gpa(piece->address.value + walk->skip),
                                              .len = (uint32_t)len};
        walk->skip = 0;
        walk->left -= len;
        return true;
    }
    return false;
}

bool virtqueue_chain_read(struct virtqueue *queue, const struct virtqueue_chain *chain,
                          uint64_t offset, void *out_data, size_t len)
{
    struct span_walk walk = span_walk(
        chain, (struct virtqueue_span){.part = VIRTQUEUE_READABLE, .offset = offset, .len = len});
    struct virtqueue_piece piece;
    uint8_t *out = out_data;

    if (!range_is_within(offset, len, chain->readable_bytes))
        return false;
    while (span_next(&walk, &piece)) {
        if (!guest_read(queue->memory, piece.address, out, piece.len))
            return false;
        out += piece.len;
    }
    return true;
}

bool virtqueue_chain_write(struct virtqueue *queue, const struct virtqueue_chain *chain,
                           uint64_t offset, const void *data, size_t len)
{
    struct span_walk walk = span_walk(
        chain, (struct virtqueue_span){.part = VIRTQUEUE_WRITABLE, .offset = offset, .len = len});
    struct virtqueue_piece piece;
    const uint8_t *in = data;

    if (!range_is_within(offset, len, chain->writable_bytes))
        return false;
    while (span_next(&walk, &piece)) {
        if (!guest_write(queue->memory, piece.address, in, piece.len))
            return false;
        in += piece.len;
    }
    return true;
}

int virtqueue_chain_span(struct virtqueue *queue, const struct virtqueue_chain *chain,
                         struct virtqueue_span span, struct iovec *out_iovs, int iovs_max)
{
    struct span_walk walk = span_walk(chain, span);
    struct virtqueue_piece piece;
    int count = 0;

    while (span_next(&walk, &piece)) {
        int added =
            guest_span(queue->memory, piece.address, piece.len, &out_iovs[count], iovs_max - count);
        if (added == 0)
            return 0;
        count += added;
    }
    return walk.left == 0 ? count : 0;
}

void virtqueue_chain_dirty(struct virtqueue *queue, const struct virtqueue_chain *chain,
                           uint64_t offset, uint64_t len)
{
    struct span_walk walk = span_walk(
        chain, (struct virtqueue_span){.part = VIRTQUEUE_WRITABLE, .offset = offset, .len = len});
    struct virtqueue_piece piece;

    while (span_next(&walk, &piece))
        guest_span_dirty(queue->memory, piece.address, piece.len);
}

void virtqueue_save(const struct virtqueue *queue, Ferry__VirtqueueState *state)
{
    state->size = queue->size;
    state->enabled = queue->is_enabled;
    state->descriptors = queue->descriptors.value;
    state->available = queue->available.value;
    state->used = queue->used.value;
    state->next_available = queue->next_available;
    state->next_used = queue->next_used;
}

struct err *virtqueue_validate(const struct virtqueue *queue, const Ferry__VirtqueueState *state)
{
    if (!is_power_of_two(state->size) || state->size > queue->size_max)
        return err_new(ERR_INVALID, "queue size %u is not a power of two in 1..%u", state->size,
                       queue->size_max);
    TRY(state_check_max("next_available", state->next_available, UINT16_MAX));
    TRY(state_check_max("next_used", state->next_used, UINT16_MAX));
    if (state->next_available != state->next_used)
        return err_new(ERR_INVALID, "%u requests in flight; a saved queue has none",
                       (uint16_t)(state->next_available - state->next_used));
    if (state->enabled && !rings_are_good(queue->memory, (uint16_t)state->size, state->descriptors,
                                          state->available, state->used))
        return err_new(ERR_INVALID, "rings at 0x%llx, 0x%llx and 0x%llx are not aligned RAM",
                       (unsigned long long)state->descriptors, (unsigned long long)state->available,
                       (unsigned long long)state->used);
    return NULL;
}

void virtqueue_apply(struct virtqueue *queue, const Ferry__VirtqueueState *state)
{
    virtqueue_reset(queue);
    queue->size = (uint16_t)state->size;
    queue->is_enabled = state->enabled;
    queue->descriptors = gpa(state->descriptors);
    queue->available = gpa(state->available);
    queue->used = gpa(state->used);
    queue->next_available = (uint16_t)state->next_available;
    queue->next_used = (uint16_t)state->next_used;
}
