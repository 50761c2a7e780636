/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net.c - a network card's configuration, thread and life cycle.
 *
 * run and halt are wishes that the net thread carries out between two callbacks, so a halted card
 * has no packet half done. Packets that arrive meanwhile wait in the tap.
 */
#include "vmm/devices/virtio/virtio_net.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/thread.h"
#include "vmm/devices/virtio/net_announce.h"
#include "vmm/devices/virtio/virtio_net_internal.h"

#define QUEUE_SIZE    256u
#define CLASS_NETWORK 0x020000u
#define CONFIG_BYTES  8u /* address and status */

#define FEATURE(bit) ((uint64_t)1 << (bit))

static struct virtio_net *net_of(struct virtio_pci *pci)
{
    return CONTAINER_OF(pci, struct virtio_net, pci);
}

static void config_read(struct virtio_pci *pci, uint8_t *out_config)
{
    const struct virtio_net *net = net_of(pci);
    struct writer out = writer_of(out_config, CONFIG_BYTES);
    bool is_announcing = atomic_load(&net->is_announcing);

    writer_bytes(&out, net->mac, sizeof(net->mac));
    writer_le16(&out, VIRTIO_NET_S_LINK_UP | (is_announcing ? VIRTIO_NET_S_ANNOUNCE : 0));
}

static void announce_send(struct virtio_net *net)
{
    uint8_t header[VIRTIO_NET_HEADER_BYTES] = {0};
    uint8_t frame[NET_ANNOUNCE_BYTES];
    struct iovec iovs[] = {{header, sizeof(header)}, {frame, sizeof(frame)}};

    net_announce_frame(net->mac, frame);
    ssize_t sent = writev(net->tap.fd, iovs, 2);
    (void)sent; /* a lost broadcast is made good by the next */
    if (--net->announcements_left == 0)
        return;
    unsigned round = NET_ANNOUNCE_ROUNDS - 1 - net->announcements_left;
    event_timer_arm(net->announce_timer, clock_monotonic_ns() + net_announce_delay_ns(round));
}

static void on_announce_timer(void *context)
{
    struct virtio_net *net = context;

    if (net->is_active && net->announcements_left > 0)
        announce_send(net);
}

static void announce_begin(struct virtio_net *net)
{
    net->must_announce = false;
    if (virtio_pci_has_feature(&net->pci, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
        atomic_store(&net->is_announcing, true);
        virtio_pci_config_changed(&net->pci);
    }
    net->announcements_left = NET_ANNOUNCE_ROUNDS;
    announce_send(net);
}

static void offload_apply(struct virtio_net *net)
{
    const struct {
        unsigned feature;
        enum net_offload offload;
    } rows[] = {
        {VIRTIO_NET_F_GUEST_CSUM, NET_OFFLOAD_CHECKSUM},
        {VIRTIO_NET_F_GUEST_TSO4, NET_OFFLOAD_TSO4},
        {VIRTIO_NET_F_GUEST_TSO6, NET_OFFLOAD_TSO6},
        {VIRTIO_NET_F_GUEST_ECN, NET_OFFLOAD_ECN},
    };
    unsigned offloads = 0;

    if (!net->tap.has_offload)
        return;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        if (virtio_pci_has_feature(&net->pci, rows[i].feature))
            offloads |= rows[i].offload;
    }
    struct err *err = net_tap_set_offload(&net->tap, offloads);
    if (err != NULL)
        log_err(LOG_WARNING, "network offloads not set", err);
}

static void activate(struct virtio_net *net)
{
    net->is_active = true;
    offload_apply(net);
    if (net->must_announce)
        announce_begin(net);
    virtio_net_transmit(net);
    virtio_net_control(net);
    virtio_net_receive(net);
}

static void deactivate(struct virtio_net *net)
{
    net->is_active = false;
    net->is_transmit_waiting = false;
    net->packet_bytes = 0; /* as if it had been lost on the wire */
    virtio_net_watch_tap(net, false);
}

static void on_wake(void *context, uint32_t events)
{
    struct virtio_net *net = context;
    eventfd_t count;

    (void)events;
    (void)eventfd_read(net->wake_fd, &count);
    lock_acquire(&net->lock);
    bool is_wanted = net->is_wanted;
    lock_release(&net->lock);

    if (is_wanted && !net->is_active)
        activate(net);
    else if (!is_wanted && net->is_active)
        deactivate(net);
    lock_acquire(&net->lock);
    net->is_running = is_wanted;
    lock_condition_broadcast(&net->changed);
    lock_release(&net->lock);
}

static void notification_take(struct virtio_net *net, unsigned queue)
{
    eventfd_t count;
    (void)eventfd_read(net->pci.queues[queue].notify_fd, &count);
}

static void on_receive(void *context, uint32_t events)
{
    struct virtio_net *net = context;

    (void)events;
    notification_take(net, VIRTIO_NET_RECEIVE);
    if (net->is_active)
        virtio_net_receive(net);
}

static void on_transmit(void *context, uint32_t events)
{
    struct virtio_net *net = context;

    (void)events;
    notification_take(net, VIRTIO_NET_TRANSMIT);
    if (net->is_active && !net->is_transmit_waiting)
        virtio_net_transmit(net);
}

static void on_control(void *context, uint32_t events)
{
    struct virtio_net *net = context;

    (void)events;
    notification_take(net, VIRTIO_NET_CONTROL);
    if (net->is_active)
        virtio_net_control(net);
}

static void on_tap(void *context, uint32_t events)
{
    struct virtio_net *net = context;

    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        /* Reported again and again, wanted or not. */
        log_error("network interface is gone", "card=%u", net->pci.base.instance);
        event_source_remove(net->tap_source);
        net->tap_source = NULL;
        return;
    }
    if (!net->is_active)
        return;
    if ((events & EPOLLOUT) != 0)
        virtio_net_transmit(net);
    virtio_net_receive(net);
}

static void thread_main(void *argument)
{
    struct virtio_net *net = argument;
    struct err *err = event_loop_run(net->loop);

    if (err != NULL)
        log_err(LOG_ERROR, "network thread ended", err);
}

static void set_wanted(struct virtio_net *net, bool is_wanted)
{
    lock_acquire(&net->lock);
    net->is_wanted = is_wanted;
    (void)eventfd_write(net->wake_fd, 1);
    while (net->is_running != is_wanted)
        lock_condition_wait(&net->changed, &net->lock);
    lock_release(&net->lock);
}

static void run(struct virtio_pci *pci)
{
    set_wanted(net_of(pci), true);
}

static void halt(struct virtio_pci *pci)
{
    set_wanted(net_of(pci), false);
}

static void net_reset(struct device *device)
{
    struct virtio_net *net = net_of(virtio_pci_of(device));

    virtio_pci_reset(device);
    net->must_announce = false;
    atomic_store(&net->is_announcing, false);
}

static void net_destroy(struct device *device)
{
    struct virtio_net *net = net_of(virtio_pci_of(device));

    if (net->thread != NULL) {
        event_loop_stop(net->loop);
        thread_join(net->thread);
    }
    event_loop_destroy(net->loop);
    virtio_pci_finish(&net->pci);
    if (net->wake_fd >= 0)
        (void)close(net->wake_fd);
    if (net->tap.fd >= 0)
        (void)close(net->tap.fd);
    lock_condition_finish(&net->changed);
    lock_finish(&net->lock);
    free(net);
}

static const struct virtio_model net_model = {
    .function_ops = VIRTIO_FUNCTION_OPS("virtio-net"),
    .device_id = VIRTIO_ID_NET,
    .class_code = CLASS_NETWORK,
    .queue_count = VIRTIO_NET_QUEUES,
    .queue_size = QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .config_read = config_read,
    .run = run,
    .halt = halt,
};

static const struct device_ops virtio_net_ops = {
    .section = "virtio-net",
    .version = 1,
    .state_type = &ferry__virtio_net_state__descriptor,
    .save = virtio_net_save,
    .validate = virtio_net_validate,
    .apply = virtio_net_apply,
    .reset = net_reset,
    .start = virtio_pci_start,
    .stop = virtio_pci_stop,
    .destroy = net_destroy,
};

static uint64_t features_of(const struct net_tap *tap)
{
    uint64_t features = FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_STATUS) |
                        FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_HOST_TSO4) |
                        FEATURE(VIRTIO_NET_F_HOST_TSO6) | FEATURE(VIRTIO_NET_F_HOST_ECN) |
                        FEATURE(VIRTIO_NET_F_MRG_RXBUF) | FEATURE(VIRTIO_NET_F_CTRL_VQ) |
                        FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE);

    if (tap->has_offload)
        features |= FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
                    FEATURE(VIRTIO_NET_F_GUEST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_ECN);
    return features;
}

static struct err *watch_all(struct virtio_net *net)
{
    static void (*const callbacks[])(void *context, uint32_t events) = {
        [VIRTIO_NET_RECEIVE] = on_receive,
        [VIRTIO_NET_TRANSMIT] = on_transmit,
        [VIRTIO_NET_CONTROL] = on_control,
    };

    for (unsigned i = 0; i < VIRTIO_NET_QUEUES; i++)
        TRY(event_loop_watch(net->loop, net->pci.queues[i].notify_fd, EPOLLIN, callbacks[i], net,
                             &net->sources[i]));
    TRY(event_loop_watch(net->loop, net->tap.fd, 0, on_tap, net, &net->tap_source));
    TRY(event_loop_watch(net->loop, net->wake_fd, EPOLLIN, on_wake, net, &net->wake_source));
    return event_loop_timer(net->loop, on_announce_timer, net, &net->announce_timer);
}

static struct err *net_set_up(struct virtio_net *net, struct device_host *host, struct pci_bus *bus)
{
    TRY(virtio_pci_init(&net->pci, &virtio_net_ops, host, bus, &net_model, features_of(&net->tap)));
    TRY(event_loop_create(&net->loop));
    net->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (net->wake_fd < 0)
        return err_errno(errno, "create an eventfd");
    TRY(watch_all(net));
    return thread_create(ROLE_NET, net->pci.base.instance, thread_main, net, &net->thread);
}

struct err *virtio_net_create(struct device_host *host, struct pci_bus *bus,
                              const struct virtio_net_options *options, struct device **out_device)
{
    struct virtio_net *net = calloc(1, sizeof(*net));
    if (net == NULL)
        return err_new(ERR_NO_MEMORY, "network card %u", options->instance);

    lock_init(&net->lock, LOCK_VIRTQUEUE);
    lock_condition_init(&net->changed);
    net->wake_fd = -1;
    net->pci.base.instance = options->instance;
    net->tap = options->tap;
    memcpy(net->mac, options->mac, sizeof(net->mac));
    struct err *err = net_set_up(net, host, bus);
    if (err != NULL) {
        net->tap.fd = -1; /* stays the caller's */
        net_destroy(&net->pci.base);
        return err_wrap(err, "network card %u", options->instance);
    }
    *out_device = &net->pci.base;
    return NULL;
}
