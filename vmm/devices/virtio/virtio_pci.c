/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_pci.c - a virtio device as a PCI function: places, notifications, interrupts, life cycle.
 *
 *     BAR 0:  common configuration | ISR | device configuration | notify | MSI-X table | pending
 *
 * A notification is a write to the notify area at 4 * queue; KVM turns it into a signal on the
 * queue's eventfd without an exit, from the moment that the driver is ready. A write that comes
 * through an exit all the same signals the eventfd from here.
 */
#include "vmm/devices/virtio/virtio_pci.h"

#include <errno.h>
#include <linux/virtio_pci.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/log.h"
#include "vmm/bus/interrupts.h"
#include "vmm/bus/pci_bus.h"
#include "vmm/bus/pci_msix.h"
#include "vmm/devices/virtio/virtio_pci_internal.h"

#define VENDOR_VIRTIO       0x1af4u
#define DEVICE_MODERN_FIRST 0x1040u
#define SUBSYSTEM_MODERN    0x1100u
#define REVISION_MODERN     1u

#define CAPABILITY_VENDOR     0x09u
#define CAPABILITY_BYTES      16u
#define CAPABILITY_LONG_BYTES 20u

/* In the configuration access capability. */
#define WINDOW_BAR    4u
#define WINDOW_OFFSET 8u
#define WINDOW_LENGTH 12u
#define WINDOW_DATA   16u

static struct virtio_pci *pci_of(struct pci_function *function)
{
    return CONTAINER_OF(function, struct virtio_pci, function);
}

static uint8_t add_capability(struct virtio_pci *pci, uint8_t type, uint32_t offset,
                              uint32_t length)
{
    uint8_t body[CAPABILITY_LONG_BYTES - 2] = {0};
    struct writer out = writer_of(body, sizeof(body));
    bool is_long = type == VIRTIO_PCI_CAP_NOTIFY_CFG || type == VIRTIO_PCI_CAP_PCI_CFG;
    uint8_t len = is_long ? CAPABILITY_LONG_BYTES : CAPABILITY_BYTES;

    writer_u8(&out, len);
    writer_u8(&out, type);
    writer_le32(&out, 0); /* BAR 0, id 0, padding */
    writer_le32(&out, offset);
    writer_le32(&out, length);
    writer_le32(&out, type == VIRTIO_PCI_CAP_NOTIFY_CFG ? VIRTIO_PCI_NOTIFY_MULTIPLIER : 0);
    return pci_function_add_capability(&pci->function, CAPABILITY_VENDOR, body, len);
}

static void add_capabilities(struct virtio_pci *pci)
{
    (void)add_capability(pci, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_COMMON_AT,
                         VIRTIO_PCI_COMMON_BYTES);
    (void)add_capability(pci, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_ISR_AT, 1);
    if (pci->model->config_bytes > 0)
        (void)add_capability(pci, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_DEVICE_AT,
                             (uint32_t)pci->model->config_bytes);
    (void)add_capability(pci, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_NOTIFY_AT,
                         pci->model->queue_count * VIRTIO_PCI_NOTIFY_MULTIPLIER);
    pci->window_at = add_capability(pci, VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
    pci->function.writable[pci->window_at + WINDOW_BAR] = 0xff;
    memset(&pci->function.writable[pci->window_at + WINDOW_OFFSET], 0xff, 12);
}

static struct err *queues_create(struct virtio_pci *pci)
{
    for (unsigned i = 0; i < pci->model->queue_count; i++) {
        struct virtio_pci_queue *queue = &pci->queues[i];
        virtqueue_init(&queue->queue, pci->base.host->memory, pci->model->queue_size);
        atomic_store(&queue->msix_vector, VIRTIO_PCI_NO_VECTOR);
        queue->notify_fd = eventfd(0, EFD_CLOEXEC);
        if (queue->notify_fd < 0)
            return err_errno(errno, "create a queue's eventfd");
    }
    return NULL;
}

struct err *virtio_pci_init(struct virtio_pci *pci, const struct device_ops *ops,
                            struct device_host *host, struct pci_bus *bus,
                            const struct virtio_model *model, uint64_t features)
{
    const struct pci_identity identity = {
        .vendor = VENDOR_VIRTIO,
        .device = (uint16_t)(DEVICE_MODERN_FIRST + model->device_id),
        .subsystem_vendor = VENDOR_VIRTIO,
        .subsystem = SUBSYSTEM_MODERN,
        .class_code = model->class_code,
        .revision = REVISION_MODERN,
    };

    ASSERT(model->queue_count <= VIRTIO_PCI_QUEUES_MAX);
    pci->base.ops = ops;
    pci->base.host = host;
    pci->bus = bus;
    pci->model = model;
    pci->features = features | VIRTIO_TRANSPORT_FEATURES;
    atomic_store(&pci->config_msix_vector, VIRTIO_PCI_NO_VECTOR);
    for (unsigned i = 0; i < VIRTIO_PCI_QUEUES_MAX; i++)
        pci->queues[i].notify_fd = -1;
    pci_function_init(&pci->function, &model->function_ops, &identity, host->mmio);
    add_capabilities(pci);

    struct pci_msix *msix = NULL;
    TRY(pci_msix_create(host->interrupts, (uint16_t)(model->queue_count + 1), &msix));
    pci_function_add_msix(&pci->function, msix, VIRTIO_PCI_MSIX_TABLE_AT,
                          VIRTIO_PCI_MSIX_PENDING_AT);
    TRY(queues_create(pci));
    return pci_bus_add(bus, &pci->function, VIRTIO_PCI_BAR_SIZE);
}

static void notify_move(struct virtio_pci *pci, uint32_t base)
{
    struct interrupts *interrupts = pci->base.host->interrupts;

    if (base == pci->notify_base)
        return;
    for (unsigned i = 0; i < pci->model->queue_count; i++) {
        uint32_t at = VIRTIO_PCI_NOTIFY_AT + i * VIRTIO_PCI_NOTIFY_MULTIPLIER;
        int fd = pci->queues[i].notify_fd;
        if (pci->notify_base != 0)
            interrupts_notify_remove(interrupts, pci->notify_base + at, fd);
        struct err *err = base == 0 ? NULL : interrupts_notify_add(interrupts, base + at, fd);
        if (err != NULL) {
            /* The queues before this one go without, too; exits do the work. */
            log_err(LOG_WARNING, "notifications will cost an exit each", err);
            while (i-- > 0)
                interrupts_notify_remove(
                    interrupts, base + VIRTIO_PCI_NOTIFY_AT + i * VIRTIO_PCI_NOTIFY_MULTIPLIER,
                    pci->queues[i].notify_fd);
            pci->notify_base = 0;
            return;
        }
    }
    pci->notify_base = base;
}

void virtio_pci_finish(struct virtio_pci *pci)
{
    if (pci->model == NULL)
        return;
    notify_move(pci, 0);
    pci_bus_remove(pci->bus, &pci->function);
    pci_function_finish(&pci->function);
    pci_msix_destroy(pci->function.msix);
    for (unsigned i = 0; i < VIRTIO_PCI_QUEUES_MAX; i++) {
        if (pci->queues[i].notify_fd >= 0)
            (void)close(pci->queues[i].notify_fd);
    }
}

void virtio_pci_interrupt(struct virtio_pci *pci, unsigned queue)
{
    atomic_fetch_or(&pci->isr, 1);
    pci_msix_fire(pci->function.msix, atomic_load(&pci->queues[queue].msix_vector));
}

void virtio_pci_config_changed(struct virtio_pci *pci)
{
    atomic_fetch_add(&pci->generation, 1);
    atomic_fetch_or(&pci->isr, 2);
    pci_msix_fire(pci->function.msix, atomic_load(&pci->config_msix_vector));
}

void virtio_pci_fail(struct virtio_pci *pci)
{
    if (atomic_exchange(&pci->needs_reset, true))
        return;
    log_guest("device needs a reset", "device=%s instance=%u reason=\"broken queue\"",
              pci->model->function_ops.name, pci->base.instance);
    virtio_pci_config_changed(pci);
}

uint8_t virtio_pci_status(const struct virtio_pci *pci)
{
    return pci->status | (atomic_load(&pci->needs_reset) ? VIRTIO_CONFIG_S_NEEDS_RESET : 0);
}

void virtio_pci_update(struct virtio_pci *pci)
{
    bool is_ready = (pci->status & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
    bool is_wanted = is_ready && pci->is_started;

    notify_move(pci, is_ready ? pci->function.bar_address : 0);
    if (is_wanted == pci->is_running)
        return;
    pci->is_running = is_wanted;
    if (is_wanted)
        pci->model->run(pci);
    else
        pci->model->halt(pci);
}

void virtio_pci_features_apply(struct virtio_pci *pci)
{
    for (unsigned i = 0; i < pci->model->queue_count; i++) {
        pci->queues[i].queue.has_indirect = virtio_pci_has_feature(pci, 28);
        pci->queues[i].queue.has_event_index = virtio_pci_has_feature(pci, 29);
    }
}

void virtio_pci_driver_reset(struct virtio_pci *pci)
{
    pci->status = 0;
    virtio_pci_update(pci);
    pci->driver_features = 0;
    pci->device_feature_select = 0;
    pci->driver_feature_select = 0;
    pci->queue_select = 0;
    pci->is_restored = false;
    atomic_store(&pci->needs_reset, false);
    atomic_store(&pci->isr, 0);
    atomic_store(&pci->config_msix_vector, VIRTIO_PCI_NO_VECTOR);
    for (unsigned i = 0; i < pci->model->queue_count; i++) {
        virtqueue_reset(&pci->queues[i].queue);
        atomic_store(&pci->queues[i].msix_vector, VIRTIO_PCI_NO_VECTOR);
    }
}

void virtio_pci_reset(struct device *device)
{
    struct virtio_pci *pci = virtio_pci_of(device);

    virtio_pci_driver_reset(pci);
    pci_function_reset(&pci->function);
}

struct err *virtio_pci_start(struct device *device)
{
    struct virtio_pci *pci = virtio_pci_of(device);

    if (pci->is_restored)
        TRY(pci_msix_start(pci->function.msix));
    pci->is_started = true;
    virtio_pci_update(pci);
    /* An interrupt that was on its way when the machine was saved may not have arrived; one too
     * many does no harm. */
    for (unsigned i = 0; pci->is_restored && pci->is_running && i < pci->model->queue_count; i++)
        virtio_pci_interrupt(pci, i);
    pci->is_restored = false;
    return NULL;
}

void virtio_pci_stop(struct device *device)
{
    struct virtio_pci *pci = virtio_pci_of(device);

    pci->is_started = false;
    virtio_pci_update(pci);
}

static void device_config_read(struct virtio_pci *pci, uint64_t offset, uint8_t *out_data,
                               size_t len)
{
    uint8_t config[VIRTIO_PCI_AREA_BYTES] = {0};

    pci->model->config_read(pci, config);
    memcpy(out_data, &config[offset], len);
}

void virtio_pci_bar_read(struct pci_function *function, uint64_t offset, uint8_t *out_data,
                         size_t len)
{
    struct virtio_pci *pci = pci_of(function);
    uint64_t inside = offset % VIRTIO_PCI_AREA_BYTES;

    memset(out_data, 0, len);
    if (!range_is_within(inside, len, VIRTIO_PCI_AREA_BYTES))
        return;
    switch (offset - inside) {
    case VIRTIO_PCI_COMMON_AT: virtio_pci_common_read(pci, inside, out_data, len); break;
    case VIRTIO_PCI_ISR_AT:
        if (inside == 0)
            out_data[0] = atomic_exchange(&pci->isr, 0);
        break;
    case VIRTIO_PCI_DEVICE_AT: device_config_read(pci, inside, out_data, len); break;
    case VIRTIO_PCI_MSIX_TABLE_AT:
        pci_msix_table_read(function->msix, inside, out_data, len);
        break;
    case VIRTIO_PCI_MSIX_PENDING_AT:
        pci_msix_pending_read(function->msix, inside, out_data, len);
        break;
    default: break;
    }
}

static void notify_write(struct virtio_pci *pci, uint64_t offset)
{
    uint64_t queue = offset / VIRTIO_PCI_NOTIFY_MULTIPLIER;

    if (queue < pci->model->queue_count)
        (void)eventfd_write(pci->queues[queue].notify_fd, 1);
}

void virtio_pci_bar_write(struct pci_function *function, uint64_t offset, const uint8_t *data,
                          size_t len)
{
    struct virtio_pci *pci = pci_of(function);
    uint64_t inside = offset % VIRTIO_PCI_AREA_BYTES;

    switch (offset - inside) {
    case VIRTIO_PCI_COMMON_AT: virtio_pci_common_write(pci, inside, data, len); break;
    case VIRTIO_PCI_NOTIFY_AT: notify_write(pci, inside); break;
    case VIRTIO_PCI_MSIX_TABLE_AT: pci_msix_table_write(function->msix, inside, data, len); break;
    default: break; /* no device here has a writable configuration */
    }
}

void virtio_pci_bar_moved(struct pci_function *function)
{
    virtio_pci_update(pci_of(function));
}

/* Is the access one of the data window, and the window's position a possible one? Then the BAR
 * offset and length that it stands for. virtio 1.2, 4.1.4.9. */
static bool window_target(const struct virtio_pci *pci, uint8_t offset, uint32_t *out_offset,
                          uint32_t *out_len)
{
    const uint8_t *window = &pci->function.config[pci->window_at];
    struct reader in = reader_of(&window[WINDOW_OFFSET], 8);
    uint32_t at = reader_le32(&in);
    uint32_t len = reader_le32(&in);

    if (offset != pci->window_at + WINDOW_DATA || window[WINDOW_BAR] != 0)
        return false;
    if ((len != 1 && len != 2 && len != 4) || at % len != 0 || at >= VIRTIO_PCI_BAR_SIZE)
        return false;
    *out_offset = at;
    *out_len = len;
    return true;
}

void virtio_pci_before_config_read(struct pci_function *function, uint8_t offset, size_t len)
{
    struct virtio_pci *pci = pci_of(function);
    uint32_t at;
    uint32_t bytes;

    (void)len;
    if (window_target(pci, offset, &at, &bytes))
        virtio_pci_bar_read(function, at, &function->config[pci->window_at + WINDOW_DATA], bytes);
}

void virtio_pci_after_config_write(struct pci_function *function, uint8_t offset, size_t len)
{
    struct virtio_pci *pci = pci_of(function);
    uint32_t at;
    uint32_t bytes;

    (void)len;
    if (window_target(pci, offset, &at, &bytes))
        virtio_pci_bar_write(function, at, &function->config[pci->window_at + WINDOW_DATA], bytes);
}
