/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.c - writes stamped blocks to the first virtio-blk disk, remembers the stamps in RAM and
 * reads blocks back against them: RAM and disk that were not cut at one instant disagree.
 *
 * Virtio 1.2 over PCI, one queue, one request at a time, polled.
 */
#include "tests/guests/guest.h"

#define BLOCK_BYTES 4096u
#define BLOCKS_MAX  1024u
#define QUEUE_SIZE  8u

enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };
enum { REQUEST_READ = 0, REQUEST_WRITE = 1, REQUEST_FLUSH = 4 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_DEVICE = 4 };

struct descriptor {
    uint64_t address;
    uint32_t len;
    uint16_t flags, next;
};

static struct {
    _Alignas(16) struct descriptor descriptors[QUEUE_SIZE];
    struct {
        uint16_t flags, index, ring[QUEUE_SIZE], event;
    } avail;
    _Alignas(16) struct {
        uint16_t flags, index;
        struct {
            uint32_t id, len;
        } ring[QUEUE_SIZE];
        uint16_t event;
    } used;
} queue;

static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;

static volatile uint8_t request_status;
static _Alignas(4096) uint64_t block_data[BLOCK_BYTES / 8];
static uint64_t stamps[BLOCKS_MAX];

static struct {
    volatile uint8_t *common, *notify, *device;
    uint32_t notify_multiplier;
    uint64_t blocks;
    bool is_found, is_busy;
    uint64_t at, stamp, reading;
    uint64_t writes, reads, flushes, bad, failed;
} disk;

static uint32_t config_read(unsigned device, unsigned offset)
{
    port_write32(0xcf8, 0x80000000u | device << 11 | (offset & 0xfc));
    return port_read32(0xcfc);
}

static void config_write(unsigned device, unsigned offset, uint32_t value)
{
    port_write32(0xcf8, 0x80000000u | device << 11 | (offset & 0xfc));
    port_write32(0xcfc, value);
}

/* The address of a memory BAR, assigned here when no firmware did. */
static uint64_t bar_address(unsigned device, unsigned bar)
{
    uint32_t low = config_read(device, 0x10 + bar * 4);
    uint64_t address = low & ~15u;

    if ((low & 6) == 4)
        address |= (uint64_t)config_read(device, 0x14 + bar * 4) << 32;
    if (address == 0) {
        address = 0xe0000000u + (device << 20) + (bar << 16);
        config_write(device, 0x10 + bar * 4, (uint32_t)address);
        if ((low & 6) == 4)
            config_write(device, 0x14 + bar * 4, 0);
    }
    return address;
}

static void find_structures(unsigned device)
{
    unsigned cap = config_read(device, 0x34) & 0xfc;

    while (cap != 0) {
        uint32_t head = config_read(device, cap);
        if ((head & 0xff) == 0x09) {
            uint64_t base = bar_address(device, config_read(device, cap + 4) & 7);
            volatile uint8_t *at = (volatile uint8_t *)(base + config_read(device, cap + 8));
            switch (head >> 24) {
            case CAP_COMMON: disk.common = at; break;
            case CAP_NOTIFY:
                disk.notify = at;
                disk.notify_multiplier = config_read(device, cap + 16);
                break;
            case CAP_DEVICE: disk.device = at; break;
            default: break;
            }
        }
        cap = head >> 8 & 0xfc;
    }
    config_write(device, 4, config_read(device, 4) | 6); /* memory, bus master */
}

static void common_write32(unsigned offset, uint32_t value)
{
    *(volatile uint32_t *)(disk.common + offset) = value;
}

static void common_write64(unsigned offset, const void *address)
{
    common_write32(offset, (uint32_t)(uintptr_t)address);
    common_write32(offset + 4, (uint32_t)((uintptr_t)address >> 32));
}

/* It may grow; what is beyond BLOCKS_MAX is left alone. */
static void look_at_size(void)
{
    disk.blocks = *(volatile uint32_t *)disk.device / (BLOCK_BYTES / 512);
    if (disk.blocks > BLOCKS_MAX)
        disk.blocks = BLOCKS_MAX;
}

static void start_device(void)
{
    disk.common[20] = 0;
    disk.common[20] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    common_write32(8, 0); /* driver feature word 0: none but flush */
    common_write32(12, 1u << 9);
    common_write32(8, 1); /* word 1: VIRTIO_F_VERSION_1 */
    common_write32(12, 1);
    disk.common[20] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
    *(volatile uint16_t *)(disk.common + 22) = 0;
    *(volatile uint16_t *)(disk.common + 24) = QUEUE_SIZE;
    common_write64(32, queue.descriptors);
    common_write64(40, &queue.avail);
    common_write64(48, &queue.used);
    *(volatile uint16_t *)(disk.common + 28) = 1;
    disk.common[20] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
    look_at_size();
}

static void disk_start(void)
{
    for (unsigned device = 0; device < 32 && !disk.is_found; device++) {
        if (config_read(device, 0) != 0x10421af4)
            continue;
        find_structures(device);
        disk.is_found = disk.common != NULL && disk.notify != NULL && disk.device != NULL;
    }
    if (disk.is_found)
        start_device();
}

static void submit(uint32_t type, uint64_t block)
{
    unsigned count = 0;

    header.type = type;
    header.sector = block * (BLOCK_BYTES / 512);
    request_status = 0xff;
    queue.descriptors[count++] = (struct descriptor){(uintptr_t)&header, sizeof(header), 1, 1};
    if (type != REQUEST_FLUSH) {
        queue.descriptors[count] = (struct descriptor){(uintptr_t)block_data, BLOCK_BYTES,
                                                       type == REQUEST_READ ? 3 : 1, 2};
        count++;
    }
    queue.descriptors[count] = (struct descriptor){(uintptr_t)&request_status, 1, 2, 0};
    queue.avail.ring[queue.avail.index % QUEUE_SIZE] = 0;
    __atomic_store_n(&queue.avail.index, (uint16_t)(queue.avail.index + 1), __ATOMIC_SEQ_CST);
    uint16_t notify_at = *(volatile uint16_t *)(disk.common + 30);
    *(volatile uint16_t *)(disk.notify + notify_at * disk.notify_multiplier) = 0;
    disk.is_busy = true;
}

static uint64_t word_of(uint64_t stamp, uint64_t block, unsigned word)
{
    return (stamp << 32) ^ (block << 12) ^ word;
}

static void complete(void)
{
    disk.failed += request_status != 0;
    if (header.type == REQUEST_WRITE) {
        stamps[disk.at] = disk.stamp;
        disk.writes++;
    } else if (header.type == REQUEST_READ) {
        bool is_bad = false;
        for (unsigned i = 0; i < BLOCK_BYTES / 8; i++)
            is_bad |= block_data[i] != word_of(stamps[disk.reading], disk.reading, i);
        disk.bad += is_bad;
        disk.reads++;
    } else {
        disk.flushes++;
    }
    disk.is_busy = false;
}

/* Two writes, a read of an older block, and now and then a flush. */
static void submit_next(void)
{
    uint64_t turn = disk.writes + disk.reads + disk.flushes;

    if (turn % 32 == 31) {
        submit(REQUEST_FLUSH, 0);
    } else if (turn % 3 == 2 && stamps[turn * 7 % disk.blocks] != 0) {
        disk.reading = turn * 7 % disk.blocks;
        submit(REQUEST_READ, disk.reading);
    } else {
        disk.at = (disk.at + 1) % disk.blocks;
        disk.stamp++;
        for (unsigned i = 0; i < BLOCK_BYTES / 8; i++)
            block_data[i] = word_of(disk.stamp, disk.at, i);
        submit(REQUEST_WRITE, disk.at);
    }
}

static void disk_step(void)
{
    if (!disk.is_found || disk.blocks == 0)
        return;
    if (!disk.is_busy)
        submit_next();
    else if (__atomic_load_n(&queue.used.index, __ATOMIC_ACQUIRE) == queue.avail.index)
        complete();
}

static void disk_report(void)
{
    if (disk.is_found)
        look_at_size();
    print_number("found", disk.is_found);
    print_number("blocks", disk.blocks);
    print_number("writes", disk.writes);
    print_number("reads", disk.reads);
    print_number("flushes", disk.flushes);
    print_number("failed", disk.failed);
    print_number("bad", disk.bad);
}

const struct job disk_job = {"disk", disk_start, disk_step, disk_report};
