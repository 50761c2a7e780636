/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk.c - a disk's configuration and life cycle.
 */
#include "vmm/devices/virtio/virtio_blk.h"

#include <assert.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/block.h"
#include "vmm/devices/virtio/virtio_blk_internal.h"

#define CLASS_MASS_STORAGE 0x018000u
#define CONFIG_BYTES       60u
#define SEGMENTS_MAX       (VIRTIO_REQUEST_IOVS - 2) /* data, less header and status */
#define BLOCK_EXPONENT     3u                        /* 4 KiB physical blocks of 512-byte sectors */
#define OPTIMAL_BLOCKS     128u                      /* 64 KiB */

static_assert(MACHINE_QUEUES_MAX <= VIRTIO_PCI_QUEUES_MAX, "what may be configured is possible");

#define FEATURE(bit) ((uint64_t)1 << (bit))

static struct virtio_blk *blk_of(struct device *device)
{
    return CONTAINER_OF(virtio_pci_of(device), struct virtio_blk, pci);
}

/* virtio 1.2, 5.2.4. The number of queues is meant for drivers that accept VIRTIO_BLK_F_MQ: the
 * others use the first. */
static void config_read(struct virtio_pci *pci, uint8_t *out_config)
{
    const struct virtio_blk *blk = CONTAINER_OF(pci, struct virtio_blk, pci);
    struct writer out = writer_of(out_config, CONFIG_BYTES);

    writer_le64(&out, blk->capacity_sectors);
    writer_le32(&out, 0); /* largest segment: any */
    writer_le32(&out, SEGMENTS_MAX);
    writer_le32(&out, 0); /* geometry: none */
    writer_le32(&out, VIRTIO_BLK_SECTOR_BYTES);
    writer_u8(&out, BLOCK_EXPONENT);
    writer_u8(&out, 0); /* aligned from the first sector */
    writer_le16(&out, 1u << BLOCK_EXPONENT);
    writer_le32(&out, OPTIMAL_BLOCKS);
    writer_u8(&out, 1); /* write-back cache */
    writer_u8(&out, 0);
    writer_le16(&out, (uint16_t)blk->model.queue_count);
    writer_le32(&out, VIRTIO_BLK_DISCARD_SECTORS_MAX);
    writer_le32(&out, 1);
    writer_le32(&out, 1u << BLOCK_EXPONENT); /* discards are aligned to this many sectors */
    writer_le32(&out, VIRTIO_BLK_ZERO_SECTORS_MAX);
    writer_le32(&out, 1);
    writer_u8(&out, 1); /* zeroing may unmap */
}

static void set_block(struct virtio_blk *blk, struct block *block)
{
    for (unsigned i = 0; i < blk->model.queue_count; i++)
        blk->queues[i].target.block = block;
}

struct err *virtio_blk_attach(struct device *device, struct block *block)
{
    struct virtio_blk *blk = blk_of(device);

    if (block != NULL) {
        uint64_t sectors = block->virtual_bytes / VIRTIO_BLK_SECTOR_BYTES;
        if (blk->is_capacity_restored && sectors != blk->capacity_sectors)
            return err_new(ERR_INCOMPATIBLE,
                           "disk '%.20s': the image has %llu sectors, the guest knows %llu; "
                           "give the image that belongs to this state",
                           blk->serial, (unsigned long long)sectors,
                           (unsigned long long)blk->capacity_sectors);
        blk->capacity_sectors = sectors;
    }
    set_block(blk, block);
    return NULL;
}

/* A configuration change tells the driver (virtio 1.2, 4.1.5.4). */
void virtio_blk_grow(struct device *device, struct block *block)
{
    struct virtio_blk *blk = blk_of(device);
    uint64_t sectors = block->virtual_bytes / VIRTIO_BLK_SECTOR_BYTES;

    set_block(blk, block);
    if (sectors == blk->capacity_sectors)
        return;
    blk->capacity_sectors = sectors;
    virtio_pci_config_changed(&blk->pci);
}

void virtio_blk_problem(struct device *device, char *out_text, size_t text_bytes)
{
    struct virtio_blk *blk = blk_of(device);

    /* Queues wait for the same host: what one of them says is said for all. */
    out_text[0] = '\0';
    for (unsigned i = 0; i < blk->model.queue_count && out_text[0] == '\0'; i++)
        virtio_blk_queue_problem(&blk->queues[i], out_text, text_bytes);
}

bool virtio_blk_retry(struct device *device)
{
    struct virtio_blk *blk = blk_of(device);
    bool is_any = false;

    for (unsigned i = 0; i < blk->model.queue_count; i++)
        is_any |= virtio_blk_queue_retry(&blk->queues[i]);
    return is_any;
}

void virtio_blk_set_rates(struct device *device, struct virtio_blk_rates rates)
{
    struct virtio_blk *blk = blk_of(device);

    virtio_blk_limit_set(&blk->limit, rates);
    for (unsigned i = 0; i < blk->model.queue_count; i++)
        virtio_blk_queue_wake(&blk->queues[i]);
}

static struct err *blk_start(struct device *device)
{
    struct virtio_blk *blk = blk_of(device);

    if (blk->queues[0].target.block == NULL)
        return err_new(ERR_STATE, "disk '%.20s' has no image", blk->serial);
    return virtio_pci_start(device);
}

static void blk_destroy(struct device *device)
{
    struct virtio_blk *blk = blk_of(device);

    for (unsigned i = 0; i < blk->model.queue_count; i++)
        virtio_blk_queue_finish(&blk->queues[i]);
    virtio_pci_finish(&blk->pci);
    virtio_blk_limit_finish(&blk->limit);
    free(blk);
}

static void blk_run(struct virtio_pci *pci)
{
    struct virtio_blk *blk = CONTAINER_OF(pci, struct virtio_blk, pci);

    for (unsigned i = 0; i < blk->model.queue_count; i++)
        virtio_blk_queue_run(&blk->queues[i]);
}

static void blk_halt(struct virtio_pci *pci)
{
    struct virtio_blk *blk = CONTAINER_OF(pci, struct virtio_blk, pci);

    for (unsigned i = 0; i < blk->model.queue_count; i++)
        virtio_blk_queue_halt_begin(&blk->queues[i]);
    for (unsigned i = 0; i < blk->model.queue_count; i++)
        virtio_blk_queue_halt_end(&blk->queues[i]);
}

/* Each disk has a copy, with the number of its queues. */
static const struct virtio_model blk_model = {
    .function_ops = VIRTIO_FUNCTION_OPS("virtio-blk"),
    .device_id = VIRTIO_ID_BLOCK,
    .class_code = CLASS_MASS_STORAGE,
    .queue_size = VIRTIO_BLK_QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .config_read = config_read,
    .run = blk_run,
    .halt = blk_halt,
};

static const struct device_ops virtio_blk_ops = {
    .section = "virtio-blk",
    .version = 1,
    .state_type = &ferry__virtio_blk_state__descriptor,
    .save = virtio_blk_save,
    .validate = virtio_blk_validate,
    .apply = virtio_blk_apply,
    .reset = virtio_pci_reset,
    .start = blk_start,
    .stop = virtio_pci_stop,
    .destroy = blk_destroy,
};

static uint64_t features_of(const struct virtio_blk_options *options)
{
    uint64_t features = FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
                        FEATURE(VIRTIO_BLK_F_TOPOLOGY) | FEATURE(VIRTIO_BLK_F_FLUSH);

    if (options->queue_count > 1)
        features |= FEATURE(VIRTIO_BLK_F_MQ);
    if (options->is_read_only)
        return features | FEATURE(VIRTIO_BLK_F_RO);
    return features | FEATURE(VIRTIO_BLK_F_DISCARD) | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
}

struct err *virtio_blk_create(struct device_host *host, struct pci_bus *bus,
                              const struct virtio_blk_options *options, struct device **out_device)
{
    struct virtio_blk *blk = calloc(1, sizeof(*blk));
    if (blk == NULL)
        return err_new(ERR_NO_MEMORY, "disk '%s'", options->serial);

    ASSERT(options->queue_count <= VIRTIO_PCI_QUEUES_MAX);
    blk->model = blk_model;
    blk->model.queue_count = MAX(options->queue_count, 1u);
    blk->pci.base.instance = options->instance;
    blk->is_read_only = options->is_read_only;
    blk->on_error = options->on_error;
    memcpy(blk->serial, options->serial, strnlen(options->serial, sizeof(blk->serial)));
    virtio_blk_limit_init(&blk->limit, options->rates);
    for (unsigned i = 0; i < blk->model.queue_count; i++) {
        virtio_blk_queue_init(&blk->queues[i], blk, i);
        blk->queues[i].target.zeroes = options->zeroes;
    }

    struct err *err =
        virtio_pci_init(&blk->pci, &virtio_blk_ops, host, bus, &blk->model, features_of(options));
    for (unsigned i = 0; i < blk->model.queue_count && err == NULL; i++)
        err = virtio_blk_queue_start(&blk->queues[i], options->engine);
    if (err != NULL) {
        blk_destroy(&blk->pci.base);
        return err_wrap(err, "disk '%s'", options->serial);
    }
    *out_device = &blk->pci.base;
    return NULL;
}
