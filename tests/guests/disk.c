/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.c - writes stamped blocks to the first virtio-blk disk, remembers the stamps in RAM and
 * reads blocks back against them: RAM and disk that were not cut at one instant disagree.
 *
 * Virtio 1.2 over PCI, polled. All queues that the device has are used, alternately, each with one
 * request at a time, so that as many are in flight as there are queues. Two jobs share them: `disk`
 * has the even ones, and the odd ones as well where `disk1` is not run. A queue writes blocks of
 * its own; a job reads what it has written through any of its queues.
 */
#include "tests/guests/guest.h"

#define BLOCK_BYTES 4096u
#define BLOCKS_MAX  1024u
#define QUEUE_SIZE  8u
#define LANES_MAX   4u

enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };
enum { FEATURE_FLUSH = 1 << 9, FEATURE_QUEUES = 1 << 12 };
enum { REQUEST_READ = 0, REQUEST_WRITE = 1, REQUEST_FLUSH = 4 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_DEVICE = 4 };

struct descriptor {
    uint64_t address;
    uint32_t len;
    uint16_t flags, next;
};

/* A queue and what is in flight in it. */
static struct lane {
    _Alignas(4096) uint64_t data[BLOCK_BYTES / 8];
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
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    volatile uint8_t status;
    volatile uint16_t *notify;
    bool is_busy;
    uint64_t block; /* that is read or written */
    uint64_t next;  /* of its own blocks, counted from 0 */
    uint64_t stamp, writes;
} lanes[LANES_MAX];

static uint64_t stamps[BLOCKS_MAX];

static struct {
    volatile uint8_t *common, *notify, *device;
    uint32_t notify_multiplier;
    uint64_t blocks;
    bool is_found;
    unsigned lane_count;
} disk;

/* A job's lanes are first, first + step, ... */
static struct share {
    unsigned first, step, turn;
    uint64_t writes, reads, flushes, bad, failed;
} shares[2];

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

/* It may grow; what is beyond BLOCKS_MAX is left alone. Each lane has as many blocks as the others.
 */
static void look_at_size(void)
{
    uint64_t blocks = *(volatile uint32_t *)disk.device / (BLOCK_BYTES / 512);

    if (blocks > BLOCKS_MAX)
        blocks = BLOCKS_MAX;
    disk.blocks = blocks - blocks % disk.lane_count;
}

static void start_lane(unsigned number)
{
    struct lane *lane = &lanes[number];

    *(volatile uint16_t *)(disk.common + 22) = (uint16_t)number;
    *(volatile uint16_t *)(disk.common + 24) = QUEUE_SIZE;
    common_write64(32, lane->descriptors);
    common_write64(40, &lane->avail);
    common_write64(48, &lane->used);
    *(volatile uint16_t *)(disk.common + 28) = 1;
    uint16_t notify_at = *(volatile uint16_t *)(disk.common + 30);
    lane->notify = (volatile uint16_t *)(disk.notify + notify_at * disk.notify_multiplier);
}

static void start_device(void)
{
    uint64_t lanes_wanted = option_number("queues", LANES_MAX);

    disk.common[20] = 0;
    disk.common[20] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    common_write32(0, 0);
    uint32_t offered = *(volatile uint32_t *)(disk.common + 4);
    common_write32(8, 0);
    common_write32(12, offered & (FEATURE_FLUSH | FEATURE_QUEUES));
    common_write32(8, 1); /* word 1: VIRTIO_F_VERSION_1 */
    common_write32(12, 1);
    disk.common[20] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
    disk.lane_count = 1;
    if ((offered & FEATURE_QUEUES) != 0)
        disk.lane_count = *(volatile uint16_t *)(disk.device + 34);
    if (disk.lane_count > LANES_MAX)
        disk.lane_count = LANES_MAX;
    if (disk.lane_count > lanes_wanted)
        disk.lane_count = (unsigned)lanes_wanted;
    for (unsigned i = 0; i < disk.lane_count; i++)
        start_lane(i);
    disk.common[20] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
    look_at_size();
}

static bool is_run(const char *job)
{
    return option_has_word("cpu0", job) || option_has_word("cpu1", job);
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
    shares[0].step = is_run("disk1") ? 2 : 1;
}

/* Job `disk` has started the device. */
static void disk1_start(void)
{
    shares[1].first = 1;
    shares[1].step = 2;
}

static void submit(struct lane *lane, uint32_t type)
{
    unsigned count = 0;

    lane->header.type = type;
    lane->header.sector = type == REQUEST_FLUSH ? 0 : lane->block * (BLOCK_BYTES / 512);
    lane->status = 0xff;
    lane->descriptors[count++] =
        (struct descriptor){(uintptr_t)&lane->header, sizeof(lane->header), 1, 1};
    if (type != REQUEST_FLUSH) {
        lane->descriptors[count] = (struct descriptor){(uintptr_t)lane->data, BLOCK_BYTES,
                                                       type == REQUEST_READ ? 3 : 1, 2};
        count++;
    }
    lane->descriptors[count] = (struct descriptor){(uintptr_t)&lane->status, 1, 2, 0};
    lane->avail.ring[lane->avail.index % QUEUE_SIZE] = 0;
    __atomic_store_n(&lane->avail.index, (uint16_t)(lane->avail.index + 1), __ATOMIC_SEQ_CST);
    *lane->notify = 0;
    lane->is_busy = true;
}

static uint64_t word_of(uint64_t stamp, uint64_t block, unsigned word)
{
    return (stamp << 32) ^ (block << 12) ^ word;
}

static void complete(struct share *share, struct lane *lane)
{
    share->failed += lane->status != 0;
    if (lane->header.type == REQUEST_WRITE) {
        stamps[lane->block] = lane->stamp;
        lane->writes++;
        share->writes++;
    } else if (lane->header.type == REQUEST_READ) {
        bool is_bad = false;
        for (unsigned i = 0; i < BLOCK_BYTES / 8; i++)
            is_bad |= lane->data[i] != word_of(stamps[lane->block], lane->block, i);
        share->bad += is_bad;
        share->reads++;
    } else {
        share->flushes++;
    }
    lane->is_busy = false;
}

/* Does a request of this type touch the block? */
static bool is_in_use(uint64_t block, uint32_t type)
{
    for (unsigned i = 0; i < disk.lane_count; i++)
        if (lanes[i].is_busy && lanes[i].header.type == type && lanes[i].block == block)
            return true;
    return false;
}

static bool can_be_read(const struct share *share, uint64_t block)
{
    return block % disk.lane_count % share->step == share->first && stamps[block] != 0 &&
           !is_in_use(block, REQUEST_WRITE);
}

/* Two writes, a read of an older block, and now and then a flush. */
static void submit_next(struct share *share, unsigned number)
{
    struct lane *lane = &lanes[number];
    uint64_t turn = share->writes + share->reads + share->flushes;
    uint64_t old_block = turn * 7 % disk.blocks;

    if (turn % 32 == 31) {
        submit(lane, REQUEST_FLUSH);
    } else if (turn % 3 == 2 && can_be_read(share, old_block)) {
        lane->block = old_block;
        submit(lane, REQUEST_READ);
    } else {
        do {
            lane->next = (lane->next + 1) % (disk.blocks / disk.lane_count);
            lane->block = lane->next * disk.lane_count + number;
        } while (is_in_use(lane->block, REQUEST_READ));
        lane->stamp++;
        for (unsigned i = 0; i < BLOCK_BYTES / 8; i++)
            lane->data[i] = word_of(lane->stamp, lane->block, i);
        submit(lane, REQUEST_WRITE);
    }
}

/* One lane after the other. */
static void share_step(struct share *share)
{
    unsigned number = share->first + share->step * share->turn;

    if (disk.blocks == 0 || number >= disk.lane_count) {
        share->turn = 0;
        return;
    }
    struct lane *lane = &lanes[number];
    if (!lane->is_busy)
        submit_next(share, number);
    else if (__atomic_load_n(&lane->used.index, __ATOMIC_ACQUIRE) == lane->avail.index)
        complete(share, lane);
    share->turn++;
}

static void share_report(const struct share *share)
{
    uint64_t queues = 0;

    for (unsigned i = share->first; i < disk.lane_count; i += share->step)
        queues += lanes[i].writes > 0;
    print_number("found", disk.is_found);
    print_number("blocks", disk.blocks);
    print_number("queues", queues); /* that have done something */
    print_number("writes", share->writes);
    print_number("reads", share->reads);
    print_number("flushes", share->flushes);
    print_number("failed", share->failed);
    print_number("bad", share->bad);
}

static void disk_step(void)
{
    share_step(&shares[0]);
}

static void disk_report(void)
{
    if (disk.is_found)
        look_at_size();
    share_report(&shares[0]);
}

static void disk1_step(void)
{
    share_step(&shares[1]);
}

static void disk1_report(void)
{
    share_report(&shares[1]);
}

const struct job disk_job = {"disk", disk_start, disk_step, disk_report};
const struct job disk1_job = {"disk1", disk1_start, disk1_step, disk1_report};
