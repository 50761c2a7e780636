/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_pci_config.c - the common configuration structure (virtio 1.2, 4.1.4.3).
 *
 * Reads show a picture of the whole structure; writes act on one field, of its own width.
 *
 * Tested by: virtio_pci_test.c.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "vmm/bus/pci_msix.h"
#include "vmm/devices/virtio/virtio_pci_internal.h"

enum {
    FIELD_DEVICE_FEATURE_SELECT = 0,
    FIELD_DEVICE_FEATURE = 4,
    FIELD_DRIVER_FEATURE_SELECT = 8,
    FIELD_DRIVER_FEATURE = 12,
    FIELD_CONFIG_VECTOR = 16,
    FIELD_STATUS = 20,
    FIELD_QUEUE_SELECT = 22,
    FIELD_QUEUE_SIZE = 24,
    FIELD_QUEUE_VECTOR = 26,
    FIELD_QUEUE_ENABLE = 28,
    FIELD_QUEUE_DESCRIPTORS = 32,
    FIELD_QUEUE_AVAILABLE = 40,
    FIELD_QUEUE_USED = 48,
};

#define STATUS_WRITABLE                                                                            \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |            \
     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

/* NULL: the driver selected a queue that the device does not have. */
static struct virtio_pci_queue *selected(struct virtio_pci *pci)
{
    return pci->queue_select < pci->model->queue_count ? &pci->queues[pci->queue_select] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static void queue_picture(struct virtio_pci *pci, struct writer *out)
{
    const struct virtio_pci_queue *selection = selected(pci);

    if (selection == NULL)
        return; /* zeros: size 0 says that there is no such queue */
    writer_le16(out, selection->queue.size);
    writer_le16(out, atomic_load(&selection->msix_vector));
    writer_le16(out, selection->queue.is_enabled);
    writer_le16(out, pci->queue_select); /* notify offset */
    writer_le64(out, selection->queue.descriptors.value);
    writer_le64(out, selection->queue.available.value);
    writer_le64(out, selection->queue.used.value);
}

void virtio_pci_common_read(struct virtio_pci *pci, uint64_t offset, uint8_t *out_data, size_t len)
{
    uint8_t picture[VIRTIO_PCI_COMMON_BYTES] = {0};
    struct writer out = writer_of(picture, sizeof(picture));

    writer_le32(&out, pci->device_feature_select);
    writer_le32(&out, feature_word(pci->features, pci->device_feature_select));
    writer_le32(&out, pci->driver_feature_select);
    writer_le32(&out, feature_word(pci->driver_features, pci->driver_feature_select));
    writer_le16(&out, atomic_load(&pci->config_msix_vector));
    writer_le16(&out, (uint16_t)pci->model->queue_count);
    writer_u8(&out, virtio_pci_status(pci));
    writer_u8(&out, atomic_load(&pci->generation));
    writer_le16(&out, pci->queue_select);
    queue_picture(pci, &out);
    if (range_is_within(offset, len, sizeof(picture)))
        memcpy(out_data, &picture[offset], len);
}

static void driver_feature_write(struct virtio_pci *pci, uint32_t value)
{
    uint32_t select = pci->driver_feature_select;

    if (select >= 2 || (pci->status & VIRTIO_CONFIG_S_FEATURES_OK) != 0)
        return;
    uint64_t mask = (uint64_t)UINT32_MAX << (32 * select);
    pci->driver_features = (pci->driver_features & ~mask) | (uint64_t)value << (32 * select);
}

static void status_write(struct virtio_pci *pci, uint8_t value)
{
    bool is_acceptable = (pci->driver_features & ~pci->features) == 0 &&
                         virtio_pci_has_feature(pci, VIRTIO_F_VERSION_1);

    if (value == 0) {
        virtio_pci_driver_reset(pci);
        return;
    }
    /* virtio 1.2, 2.1.1: "The driver MUST NOT clear a device status bit"; features that do not fit
     * are refused by leaving FEATURES_OK unset. */
    uint8_t status = pci->status | (value & STATUS_WRITABLE);
    if ((pci->status & VIRTIO_CONFIG_S_FEATURES_OK) == 0 && !is_acceptable)
        status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
    if ((status & VIRTIO_CONFIG_S_FEATURES_OK) == 0)
        status &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
    pci->status = status;
    virtio_pci_features_apply(pci);
    virtio_pci_update(pci);
}

static uint16_t vector_checked(const struct virtio_pci *pci, uint64_t value)
{
    return value < pci_msix_vector_count(pci->function.msix) ? (uint16_t)value
                                                             : VIRTIO_PCI_NO_VECTOR;
}

/* An address of 64 bits is written in one piece or in halves. */
static void address_write(gpa_t *address, uint64_t inside, uint64_t value, size_t len)
{
    if (len == 8)
        address->value = value;
    else if (len == 4 && inside == 0)
        address->value = (address->value & ~(uint64_t)UINT32_MAX) | value;
    else if (len == 4)
        address->value = (address->value & UINT32_MAX) | value << 32;
}

static void queue_write(struct virtio_pci *pci, uint64_t offset, uint64_t value, size_t len)
{
    struct virtio_pci_queue *selection = selected(pci);

    if (selection == NULL)
        return;
    struct virtqueue *queue = &selection->queue;
    if (offset == FIELD_QUEUE_VECTOR) {
        atomic_store(&selection->msix_vector, vector_checked(pci, value));
        return;
    }
    /* The rest is fixed from the moment that the queue is enabled. */
    if (queue->is_enabled)
        return;
    switch (offset & ~(uint64_t)7) {
    case FIELD_QUEUE_SIZE:
        if (offset == FIELD_QUEUE_SIZE && is_power_of_two(value) && value <= queue->size_max)
            queue->size = (uint16_t)value;
        else if (offset == FIELD_QUEUE_ENABLE && value == 1 && !virtqueue_enable(queue))
            virtio_pci_fail(pci);
        break;
    case FIELD_QUEUE_DESCRIPTORS: address_write(&queue->descriptors, offset % 8, value, len); break;
    case FIELD_QUEUE_AVAILABLE: address_write(&queue->available, offset % 8, value, len); break;
    case FIELD_QUEUE_USED: address_write(&queue->used, offset % 8, value, len); break;
    default: break;
    }
}

void virtio_pci_common_write(struct virtio_pci *pci, uint64_t offset, const uint8_t *data,
                             size_t len)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len; i++)
        value |= (uint64_t)data[i] << (8 * i);
    switch (offset) {
    case FIELD_DEVICE_FEATURE_SELECT: pci->device_feature_select = (uint32_t)value; break;
    case FIELD_DRIVER_FEATURE_SELECT: pci->driver_feature_select = (uint32_t)value; break;
    case FIELD_DRIVER_FEATURE: driver_feature_write(pci, (uint32_t)value); break;
    case FIELD_CONFIG_VECTOR:
        atomic_store(&pci->config_msix_vector, vector_checked(pci, value));
        break;
    case FIELD_STATUS: status_write(pci, (uint8_t)value); break;
    case FIELD_QUEUE_SELECT: pci->queue_select = (uint16_t)value; break;
    default:
        if (offset >= FIELD_QUEUE_SIZE)
            queue_write(pci, offset, value, len);
        break;
    }
}
