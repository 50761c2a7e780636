/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_state.c - saving and restoring a disk: registers only; its bytes are the image's.
 */
#include "base/checked_math.h"
#include "base/limits.h"
#include "vmm/devices/state_message.h"
#include "vmm/devices/virtio/virtio_blk_internal.h"

struct err *virtio_blk_save(struct device *device, ProtobufCMessage **out_state)
{
    struct virtio_blk *blk = CONTAINER_OF(virtio_pci_of(device), struct virtio_blk, pci);
    Ferry__VirtioBlkState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__virtio_blk_state__descriptor, &state));

    state->capacity_sectors = blk->capacity_sectors;
    state->read_only = blk->is_read_only;
    struct err *err = virtio_pci_save(&blk->pci, &state->transport);
    return state_message_finish(err, &state->base, out_state);
}

struct err *virtio_blk_validate(struct device *device, uint32_t version,
                                const ProtobufCMessage *message)
{
    const struct virtio_blk *blk = CONTAINER_OF(virtio_pci_of(device), struct virtio_blk, pci);
    const Ferry__VirtioBlkState *state = STATE_MESSAGE(Ferry__VirtioBlkState, message);

    (void)version;
    if (state->read_only != blk->is_read_only)
        return err_new(ERR_INCOMPATIBLE, "the guest knows disk '%.20s' as %s, this one is %s",
                       blk->serial, state->read_only ? "read-only" : "writable",
                       blk->is_read_only ? "read-only" : "writable");
    /* A description without a number of queues is of one, as states were before there were more. */
    if (state->transport != NULL && state->transport->n_queues != blk->model.queue_count)
        return err_new(ERR_INCOMPATIBLE,
                       "disk '%.20s' has %zu queues in the state and %u in the configuration",
                       blk->serial, state->transport->n_queues, blk->model.queue_count);
    TRY(state_check_max("capacity_sectors", state->capacity_sectors,
                        DISK_BYTES_MAX / VIRTIO_BLK_SECTOR_BYTES));
    return virtio_pci_validate(&blk->pci, state->transport);
}

struct err *virtio_blk_apply(struct device *device, const ProtobufCMessage *message)
{
    struct virtio_blk *blk = CONTAINER_OF(virtio_pci_of(device), struct virtio_blk, pci);
    const Ferry__VirtioBlkState *state = STATE_MESSAGE(Ferry__VirtioBlkState, message);

    virtio_pci_apply(&blk->pci, state->transport);
    blk->capacity_sectors = state->capacity_sectors;
    blk->is_capacity_restored = true;
    return NULL;
}
