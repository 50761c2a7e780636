/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue_fuzz.c - rings of a hostile driver: the input is the first bytes of guest memory, where
 * all three tables are.
 * Tested by: the replay of tests/fuzz/corpus/virtqueue.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "vmm/devices/virtio/virtqueue.h"

#define RAM_BYTES     MIB
#define QUEUE_SIZE    8u
#define AVAILABLE_AT  0x80u
#define USED_AT       0xa0u
#define REQUESTS_MAX  64u
#define FLAG_EVENTS   1u
#define FLAG_INDIRECT 2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_chain(const struct virtqueue_chain *chain)
{
    size_t count = (size_t)chain->readable_count + chain->writable_count;
    uint64_t bytes = 0;

    ASSERT(count <= VIRTIO_REQUEST_IOVS);
    for (size_t i = 0; i < count; i++) {
        ASSERT(chain->pieces[i].address.value + chain->pieces[i].len <= RAM_BYTES);
        bytes += chain->pieces[i].len;
    }
    ASSERT(bytes == chain->readable_bytes + chain->writable_bytes);
}

/* As a device does: a header, a bulk transfer, a status at the end. */
static void serve(struct virtqueue *queue, const struct virtqueue_chain *chain)
{
    static struct iovec iovs[VIRTIO_REQUEST_IOVS];
    uint8_t bytes[16] = {0};
    struct virtqueue_span span = {
        .part = VIRTQUEUE_WRITABLE, .offset = 3, .len = chain->writable_bytes / 2};

    (void)virtqueue_chain_read(queue, chain, 1, bytes, sizeof(bytes));
    (void)virtqueue_chain_span(queue, chain, span, iovs, VIRTIO_REQUEST_IOVS);
    virtqueue_chain_dirty(queue, chain, 0, chain->writable_bytes);
    (void)virtqueue_chain_write(queue, chain, chain->writable_bytes - 1, bytes, 1);
    virtqueue_fill(queue, chain->head, 1);
    (void)virtqueue_publish(queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtqueue_chain chain;
    struct guest_memory *memory = NULL;
    struct virtqueue queue;

    if (size < 1 || size > RAM_BYTES)
        return 0;
    struct err *err = guest_memory_create(RAM_BYTES, RAM_BYTES, &memory);
    ASSERT(err == NULL);
    ASSERT(guest_write(memory, gpa(0), data + 1, size - 1));
    virtqueue_init(&queue, memory, QUEUE_SIZE);
    queue.has_event_index = (data[0] & FLAG_EVENTS) != 0;
    queue.has_indirect = (data[0] & FLAG_INDIRECT) != 0;
    queue.available = gpa(AVAILABLE_AT);
    queue.used = gpa(USED_AT);
    ASSERT(virtqueue_enable(&queue));

    for (unsigned i = 0; i < REQUESTS_MAX; i++) {
        if (virtqueue_pop(&queue, &chain) != VIRTQUEUE_CHAIN)
            break;
        check_chain(&chain);
        serve(&queue, &chain);
    }
    (void)virtqueue_arm(&queue);
    (void)virtqueue_arm_for_more(&queue);
    guest_memory_destroy(memory);
    return 0;
}
