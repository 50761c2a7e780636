/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_request_fixture.h - what the driver of virtio_blk_fixture.h asks of its disk, for
 * tests.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_REQUEST_FIXTURE_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_REQUEST_FIXTURE_H

#include <sched.h>

#include "base/bytes.h"
#include "vmm/devices/virtio/virtio_blk_fixture.h"

#define HEADER_AT 0x100000u
#define STATUS_AT 0x180000u
#define DATA_AT   0x200000u

/* Queues a request; each has its own header and status. */
static inline void submit_on(struct bench *bench, unsigned queue, uint32_t type, uint64_t sector,
                             struct driver_buffer data)
{
    unsigned n = bench->requests++ % 64;
    uint8_t header[16];
    struct writer out = writer_of(header, sizeof(header));
    struct driver_buffer buffers[] = {
        {gpa(HEADER_AT + n * 16), 16, VIRTQUEUE_READABLE},
        data,
        {gpa(STATUS_AT + n), 1, VIRTQUEUE_WRITABLE},
    };

    writer_le32(&out, type);
    writer_le32(&out, 0);
    writer_le64(&out, sector);
    assert_true(guest_write(bench->memory, gpa(HEADER_AT + n * 16), header, sizeof(header)));
    assert_true(guest_write(bench->memory, gpa(STATUS_AT + n), "\xff", 1));
    if (data.len == 0) {
        buffers[1] = buffers[2];
        (void)virtqueue_driver_fake_add(&bench->rings[queue], buffers, 2);
    } else {
        (void)virtqueue_driver_fake_add(&bench->rings[queue], buffers, 3);
    }
    virtio_driver_fake_notify(&bench->driver, queue);
}

static inline void submit(struct bench *bench, uint32_t type, uint64_t sector,
                          struct driver_buffer data)
{
    submit_on(bench, 0, type, sector, data);
}

static inline void wait_used_on(struct bench *bench, unsigned queue)
{
    uint32_t head, written;

    while (!virtqueue_driver_fake_used(&bench->rings[queue], &head, &written))
        (void)sched_yield();
}

/* How many requests of all queues have come back since this was last asked. */
static inline unsigned count_used(struct bench *bench)
{
    unsigned count = 0;
    uint32_t head, written;

    for (unsigned i = 0; i < bench->queue_count; i++)
        while (virtqueue_driver_fake_used(&bench->rings[i], &head, &written))
            count++;
    return count;
}

static inline void wait_used(struct bench *bench, uint32_t *out_written)
{
    uint32_t head;

    while (!virtqueue_driver_fake_used(&bench->rings[0], &head, out_written))
        (void)sched_yield();
}

static inline uint8_t last_status(struct bench *bench)
{
    uint8_t status = 0xff;

    assert_true(guest_read(bench->memory, gpa(STATUS_AT + (bench->requests - 1) % 64), &status, 1));
    return status;
}

/* One request from submission to status. */
static inline uint8_t request(struct bench *bench, uint32_t type, uint64_t sector,
                              struct driver_buffer data)
{
    uint32_t written = 0;

    submit(bench, type, sector, data);
    wait_used(bench, &written);
    return last_status(bench);
}

static inline struct driver_buffer to_disk(uint32_t len)
{
    return (struct driver_buffer){gpa(DATA_AT), len, VIRTQUEUE_READABLE};
}

static inline struct driver_buffer from_disk(uint32_t len)
{
    return (struct driver_buffer){gpa(DATA_AT), len, VIRTQUEUE_WRITABLE};
}

static const struct driver_buffer nothing = {.len = 0};

#endif
