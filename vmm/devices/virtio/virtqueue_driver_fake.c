/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue_driver_fake.c - see virtqueue_driver_fake.h.
 *
 * Tested by: the tests of the virtqueue and of every virtio device.
 */
#include "vmm/devices/virtio/virtqueue_driver_fake.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

#define NEXT     0x1u
#define WRITE    0x2u
#define RINGS_AT 0x8000u /* behind at most 1024 descriptors and their half of the space */

void virtqueue_driver_fake_init(struct virtqueue_driver_fake *driver, struct guest_memory *memory,
                                gpa_t start, uint16_t size)
{
    const uint8_t zeros[0x10000] = {0};

    ASSERT(guest_write(memory, start, zeros, sizeof(zeros)));
    *driver = (struct virtqueue_driver_fake){
        .memory = memory,
        .size = size,
        .descriptors = start,
        .available = gpa(start.value + RINGS_AT),
        .used = gpa(start.value + RINGS_AT + 0x2000),
    };
}

void virtqueue_driver_fake_attach(const struct virtqueue_driver_fake *driver,
                                  struct virtqueue *queue)
{
    queue->size = driver->size;
    queue->descriptors = driver->descriptors;
    queue->available = driver->available;
    queue->used = driver->used;
    ASSERT(virtqueue_enable(queue));
}

void virtqueue_driver_fake_describe(struct virtqueue_driver_fake *driver, gpa_t table,
                                    uint16_t index, struct driver_buffer buffer, int next)
{
    uint8_t bytes[16];
    struct writer out = writer_of(bytes, sizeof(bytes));
    unsigned flags = (next >= 0 ? NEXT : 0) | (buffer.part == VIRTQUEUE_WRITABLE ? WRITE : 0);

    writer_le64(&out, buffer.address.value);
    writer_le32(&out, buffer.len);
    writer_le16(&out, (uint16_t)flags);
    writer_le16(&out, (uint16_t)(next >= 0 ? next : 0));
    ASSERT(
        guest_write(driver->memory, gpa(table.value + (uint64_t)index * 16), bytes, sizeof(bytes)));
}

void virtqueue_driver_fake_offer(struct virtqueue_driver_fake *driver, uint16_t head)
{
    uint64_t slot = driver->available_index % driver->size;

    ASSERT(
        guest_store_release16(driver->memory, gpa(driver->available.value + 4 + slot * 2), head));
    driver->available_index++;
    ASSERT(guest_store_release16(driver->memory, gpa(driver->available.value + 2),
                                 driver->available_index));
}

uint16_t virtqueue_driver_fake_add(struct virtqueue_driver_fake *driver,
                                   const struct driver_buffer *buffers, size_t count)
{
    uint16_t head = driver->next_descriptor;

    for (size_t i = 0; i < count; i++) {
        uint16_t at = driver->next_descriptor;
        uint16_t next = (uint16_t)((at + 1) % driver->size);
        virtqueue_driver_fake_describe(driver, driver->descriptors, at, buffers[i],
                                       i + 1 < count ? next : -1);
        driver->next_descriptor = next;
    }
    virtqueue_driver_fake_offer(driver, head);
    return head;
}

bool virtqueue_driver_fake_used(struct virtqueue_driver_fake *driver, uint32_t *out_head,
                                uint32_t *out_written)
{
    uint16_t index = 0;
    uint8_t entry[8];

    ASSERT(guest_load_acquire16(driver->memory, gpa(driver->used.value + 2), &index));
    if (index == driver->used_index)
        return false;
    uint64_t slot = driver->used_index % driver->size;
    ASSERT(
        guest_read(driver->memory, gpa(driver->used.value + 4 + slot * 8), entry, sizeof(entry)));
    struct reader in = reader_of(entry, sizeof(entry));
    *out_head = reader_le32(&in);
    *out_written = reader_le32(&in);
    driver->used_index++;
    return true;
}

void virtqueue_driver_fake_want(struct virtqueue_driver_fake *driver, uint16_t index)
{
    ASSERT(guest_store_release16(driver->memory,
                                 gpa(driver->available.value + 4 + driver->size * 2ull), index));
}
