/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_fixture.h - a disk in memory behind a virtio_blk, and its driver, for tests.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_FIXTURE_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_FIXTURE_H

#include <sched.h>
#include <string.h>

#include "base/bytes.h"
#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/devices/virtio/virtio_driver_fake.h"

#define RAM_BYTES  (4 * MIB)
#define DISK_BYTES (1 * MIB)
#define HEADER_AT  0x100000u
#define STATUS_AT  0x180000u
#define DATA_AT    0x200000u

/* Every test is run with each. */
static enum io_engine_kind engine = IO_ENGINE_ANY;
/* What a test wants of the disk beyond that. */
static struct virtio_blk_options more;

struct bench {
    struct device_host_fake fake;
    struct guest_memory *memory;
    struct pci_bus *bus;
    struct block *disk;
    struct device *blk;
    struct virtio_driver_fake driver;
    struct virtqueue_driver_fake rings;
    unsigned requests;
};

static inline void bench_init_bare(struct bench *bench, bool is_read_only)
{
    struct virtio_blk_options options = more;

    options.serial = "system";
    options.is_read_only = is_read_only;
    options.engine = engine;
    memset(bench, 0, sizeof(*bench));
    ASSERT_OK(guest_memory_create(RAM_BYTES, RAM_BYTES, &bench->memory));
    device_host_fake_init(&bench->fake, bench->memory);
    ASSERT_OK(pci_bus_create(&bench->fake.host, &bench->bus));
    ASSERT_OK(virtio_blk_create(&bench->fake.host, bench->bus, &options, &bench->blk));
    ASSERT_OK(block_memory_create(DISK_BYTES, &bench->disk));
    bench->disk->is_read_only = is_read_only;
}

static inline void bench_drive(struct bench *bench)
{
    virtio_driver_fake_init(&bench->driver, &bench->fake, 1);
    virtqueue_driver_fake_init(&bench->rings, bench->memory, gpa(0x10000), 64);
    assert_true(
        virtio_driver_fake_negotiate(&bench->driver, virtio_driver_fake_features(&bench->driver)));
    virtio_driver_fake_set_queue(&bench->driver, 0, &bench->rings);
    virtio_driver_fake_ready(&bench->driver);
}

static inline void bench_init(struct bench *bench)
{
    bench_init_bare(bench, false);
    ASSERT_OK(virtio_blk_attach(bench->blk, bench->disk));
    ASSERT_OK(bench->blk->ops->start(bench->blk));
    bench_drive(bench);
}

static inline void bench_finish(struct bench *bench)
{
    bench->blk->ops->destroy(bench->blk);
    ASSERT_OK(block_close(bench->disk));
    struct device *bus = pci_bus_device(bench->bus);
    bus->ops->destroy(bus);
    device_host_fake_finish(&bench->fake);
    guest_memory_destroy(bench->memory);
}

/* Queues a request; each has its own header and status. */
static inline void submit(struct bench *bench, uint32_t type, uint64_t sector,
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
        (void)virtqueue_driver_fake_add(&bench->rings, buffers, 2);
    } else {
        (void)virtqueue_driver_fake_add(&bench->rings, buffers, 3);
    }
    virtio_driver_fake_notify(&bench->driver, 0);
}

static inline void wait_used(struct bench *bench, uint32_t *out_written)
{
    uint32_t head;

    while (!virtqueue_driver_fake_used(&bench->rings, &head, out_written))
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
