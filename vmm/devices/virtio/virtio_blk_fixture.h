/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_fixture.h - a disk in memory behind a virtio_blk, and its driver, for tests.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_BLK_FIXTURE_H
#define VMM_DEVICES_VIRTIO_VIRTIO_BLK_FIXTURE_H

#include <string.h>

#include "base/unit_test.h"
#include "storage/block_memory.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/devices/virtio/virtio_blk.h"
#include "vmm/devices/virtio/virtio_driver_fake.h"
#include "vmm/devices/virtio/virtio_pci.h"

#define RAM_BYTES  (4 * MIB)
#define DISK_BYTES (1 * MIB)

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
    unsigned queue_count;
    struct virtqueue_driver_fake rings[VIRTIO_PCI_QUEUES_MAX];
    unsigned requests;
};

static inline void bench_init_bare(struct bench *bench, bool is_read_only)
{
    struct virtio_blk_options options = more;

    options.serial = "system";
    options.is_read_only = is_read_only;
    options.engine = engine;
    memset(bench, 0, sizeof(*bench));
    bench->queue_count = options.queue_count > 1 ? options.queue_count : 1;
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
    assert_true(
        virtio_driver_fake_negotiate(&bench->driver, virtio_driver_fake_features(&bench->driver)));
    for (unsigned i = 0; i < bench->queue_count; i++) {
        virtqueue_driver_fake_init(&bench->rings[i], bench->memory, gpa(0x10000 * (i + 1)), 64);
        virtio_driver_fake_set_queue(&bench->driver, i, &bench->rings[i]);
    }
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

#endif
