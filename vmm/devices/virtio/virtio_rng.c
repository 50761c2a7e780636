/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_rng.c - fills buffers from getrandom, on the loop, a bounded number a turn.
 */
#include "vmm/devices/virtio/virtio_rng.h"

#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "base/checked_math.h"
#include "base/event_loop.h"
#include "base/lock.h"
#include "vmm/devices/state_message.h"
#include "vmm/devices/virtio/virtio_pci.h"

#define QUEUE_SIZE         64u
#define REQUESTS_PER_TURN  16u
#define REQUEST_BYTES_MAX  4096u /* a request may be filled in part */
#define CLASS_UNCLASSIFIED 0x00ff00u

struct virtio_rng {
    struct virtio_pci pci;
    struct event_source *watch; /* owned */
    struct lock lock;           /* the queue between the loop and a vCPU that resets the device */
    bool is_running GUARDED_BY(&lock);
    struct virtqueue_chain chain GUARDED_BY(&lock);
    uint8_t bytes[REQUEST_BYTES_MAX] GUARDED_BY(&lock);
};

static struct virtio_rng *rng_of(struct virtio_pci *pci)
{
    return CONTAINER_OF(pci, struct virtio_rng, pci);
}

static void request_fill_locked(struct virtio_rng *rng, struct virtqueue *queue)
    REQUIRES(&rng->lock)
{
    size_t len = (size_t)MIN(rng->chain.writable_bytes, (uint64_t)REQUEST_BYTES_MAX);
    ssize_t got = getrandom(rng->bytes, len, 0);

    if (got < 0 || !virtqueue_chain_write(queue, &rng->chain, 0, rng->bytes, (size_t)got))
        got = 0;
    virtqueue_fill(queue, rng->chain.head, (uint32_t)got);
}

/* Returns whether the driver wants an interrupt. */
static bool queue_serve_locked(struct virtio_rng *rng, struct virtio_pci_queue *slot)
    REQUIRES(&rng->lock)
{
    struct virtqueue *queue = &slot->queue;
    unsigned served = 0;

    do {
        while (served < REQUESTS_PER_TURN && virtqueue_pop(queue, &rng->chain) == VIRTQUEUE_CHAIN) {
            request_fill_locked(rng, queue);
            served++;
        }
    } while (served < REQUESTS_PER_TURN && virtqueue_arm(queue));
    if (queue->is_broken)
        virtio_pci_fail(&rng->pci);
    else if (served == REQUESTS_PER_TURN)
        (void)eventfd_write(slot->notify_fd, 1); /* goes on in the next turn */
    return served > 0 && virtqueue_publish(queue);
}

static void on_notify(void *context, uint32_t events)
{
    struct virtio_rng *rng = context;
    struct virtio_pci_queue *slot = &rng->pci.queues[0];
    bool wants_interrupt = false;
    eventfd_t count;

    (void)events;
    (void)eventfd_read(slot->notify_fd, &count);
    lock_acquire(&rng->lock);
    if (rng->is_running)
        wants_interrupt = queue_serve_locked(rng, slot);
    lock_release(&rng->lock);
    if (wants_interrupt)
        virtio_pci_interrupt(&rng->pci, 0);
}

static void config_read(struct virtio_pci *pci, uint8_t *out_config)
{
    (void)pci; /* it has none */
    (void)out_config;
}

static void set_running(struct virtio_rng *rng, bool is_running)
{
    lock_acquire(&rng->lock);
    rng->is_running = is_running;
    lock_release(&rng->lock);
}

static void run(struct virtio_pci *pci)
{
    set_running(rng_of(pci), true);
    (void)eventfd_write(pci->queues[0].notify_fd, 1);
}

static void halt(struct virtio_pci *pci)
{
    set_running(rng_of(pci), false);
}

static struct err *rng_save(struct device *device, ProtobufCMessage **out_state)
{
    Ferry__VirtioRngState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__virtio_rng_state__descriptor, &state));

    struct err *err = virtio_pci_save(virtio_pci_of(device), &state->transport);
    return state_message_finish(err, &state->base, out_state);
}

static struct err *rng_validate(struct device *device, uint32_t version,
                                const ProtobufCMessage *message)
{
    (void)version;
    return virtio_pci_validate(virtio_pci_of(device),
                               STATE_MESSAGE(Ferry__VirtioRngState, message)->transport);
}

static struct err *rng_apply(struct device *device, const ProtobufCMessage *message)
{
    virtio_pci_apply(virtio_pci_of(device),
                     STATE_MESSAGE(Ferry__VirtioRngState, message)->transport);
    return NULL;
}

static void rng_destroy(struct device *device)
{
    struct virtio_rng *rng = rng_of(virtio_pci_of(device));

    event_source_remove(rng->watch);
    virtio_pci_finish(&rng->pci);
    lock_finish(&rng->lock);
    free(rng);
}

static const struct virtio_model rng_model = {
    .function_ops = VIRTIO_FUNCTION_OPS("virtio-rng"),
    .device_id = VIRTIO_ID_RNG,
    .class_code = CLASS_UNCLASSIFIED,
    .queue_count = 1,
    .queue_size = QUEUE_SIZE,
    .config_read = config_read,
    .run = run,
    .halt = halt,
};

static const struct device_ops virtio_rng_ops = {
    .section = "virtio-rng",
    .version = 1,
    .state_type = &ferry__virtio_rng_state__descriptor,
    .save = rng_save,
    .validate = rng_validate,
    .apply = rng_apply,
    .reset = virtio_pci_reset,
    .start = virtio_pci_start,
    .stop = virtio_pci_stop,
    .destroy = rng_destroy,
};

struct err *virtio_rng_create(struct device_host *host, struct pci_bus *bus, uint32_t instance,
                              struct device **out_device)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (rng == NULL)
        return err_new(ERR_NO_MEMORY, "virtio-rng");

    lock_init(&rng->lock, LOCK_VIRTQUEUE);
    rng->pci.base.instance = instance;
    struct err *err = virtio_pci_init(&rng->pci, &virtio_rng_ops, host, bus, &rng_model, 0);
    if (err == NULL)
        err = event_loop_watch(host->loop, rng->pci.queues[0].notify_fd, EPOLLIN, on_notify, rng,
                               &rng->watch);
    if (err != NULL) {
        rng_destroy(&rng->pci.base);
        return err_wrap(err, "virtio-rng %u", instance);
    }
    *out_device = &rng->pci.base;
    return NULL;
}
