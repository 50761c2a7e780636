/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net_queues.c - packets between tap and queues, on the net thread.
 *
 * Each function does a bounded number of packets and arranges to be called again. Packets from the
 * tap are read only while the guest has a buffer; else they wait in the tap, whose sender notices
 * in the end. A packet that needs more buffers than there are stays in `packet`.
 *
 * Tested by: virtio_net_test.c.
 */
#include <errno.h>
#include <linux/virtio_net.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/event_loop.h"
#include "vmm/devices/virtio/virtio_net_internal.h"

#define PACKETS_PER_TURN 64u

#define HEADER_BUFFERS_AT 10u /* num_buffers in the packet header */

static struct virtqueue *queue_of(struct virtio_net *net, unsigned index)
{
    return &net->pci.queues[index].queue;
}

static void publish(struct virtio_net *net, unsigned index)
{
    if (virtqueue_publish(queue_of(net, index)))
        virtio_pci_interrupt(&net->pci, index);
}

static void fail_if_broken(struct virtio_net *net, unsigned index)
{
    if (queue_of(net, index)->is_broken)
        virtio_pci_fail(&net->pci);
}

void virtio_net_watch_tap(struct virtio_net *net, bool wants_packets)
{
    uint32_t events = wants_packets ? EPOLLIN : 0;

    if (net->is_transmit_waiting)
        events |= EPOLLOUT;
    if (net->tap_source != NULL)
        event_source_set_events(net->tap_source, events);
}

enum delivery { DELIVERY_DONE, DELIVERY_NO_BUFFERS, DELIVERY_DROPPED };

/* Fills buffers with the packet, none of them published. */
static enum delivery fill_buffers(struct virtio_net *net, struct virtqueue *queue,
                                  uint16_t buffers_max, uint16_t *out_buffers)
{
    size_t done = 0;
    uint16_t buffers = 0;

    while (done < net->packet_bytes) {
        struct virtqueue_chain *chain = buffers == 0 ? &net->first : &net->chain;
        bool is_too_long = buffers == buffers_max;
        if (is_too_long || virtqueue_pop(queue, chain) != VIRTQUEUE_CHAIN) {
            virtqueue_unpop(queue, buffers, buffers);
            return is_too_long ? DELIVERY_DROPPED : DELIVERY_NO_BUFFERS;
        }
        size_t piece = (size_t)MIN(chain->writable_bytes, (uint64_t)(net->packet_bytes - done));
        if (!virtqueue_chain_write(queue, chain, 0, &net->packet[done], piece))
            queue->is_broken = true;
        virtqueue_fill(queue, chain->head, (uint32_t)piece);
        done += piece;
        buffers++;
    }
    *out_buffers = buffers;
    return DELIVERY_DONE;
}

static enum delivery deliver(struct virtio_net *net)
{
    struct virtqueue *queue = queue_of(net, VIRTIO_NET_RECEIVE);
    bool may_merge = virtio_pci_has_feature(&net->pci, VIRTIO_NET_F_MRG_RXBUF);
    uint16_t buffers = 0;

    if (net->packet_bytes < VIRTIO_NET_HEADER_BYTES)
        return DELIVERY_DROPPED;
    enum delivery delivery = fill_buffers(net, queue, may_merge ? queue->size : 1, &buffers);
    const uint8_t count[2] = {(uint8_t)buffers, (uint8_t)(buffers >> 8)};
    /* virtio 1.2, 5.1.6.4.1: 1 without merged buffers. The first buffer has to hold the header. */
    if (delivery == DELIVERY_DONE &&
        !virtqueue_chain_write(queue, &net->first, HEADER_BUFFERS_AT, count, sizeof(count)))
        queue->is_broken = true;
    return delivery;
}

/* Is there a packet to deliver? Reads one when there is a buffer for it. */
static bool packet_ready(struct virtio_net *net)
{
    if (net->packet_bytes > 0)
        return true;
    if (!virtqueue_has_available(queue_of(net, VIRTIO_NET_RECEIVE)))
        return false;
    ssize_t got = read(net->tap.fd, net->packet, sizeof(net->packet));
    if (got <= 0)
        return false;
    net->packet_bytes = (size_t)got;
    return true;
}

void virtio_net_receive(struct virtio_net *net)
{
    struct virtqueue *queue = queue_of(net, VIRTIO_NET_RECEIVE);
    unsigned delivered = 0;
    bool needs_buffers = false;

    virtqueue_disarm(queue);
    for (unsigned i = 0; i < PACKETS_PER_TURN && packet_ready(net); i++) {
        enum delivery delivery = deliver(net);
        if (delivery == DELIVERY_NO_BUFFERS) {
            needs_buffers = true;
            break;
        }
        net->packet_bytes = 0;
        delivered += delivery == DELIVERY_DONE;
    }
    if (delivered > 0)
        publish(net, VIRTIO_NET_RECEIVE);
    fail_if_broken(net, VIRTIO_NET_RECEIVE);

    /* Without buffers the tap is left alone until the guest's notification. */
    bool has_buffers = needs_buffers ? virtqueue_arm_for_more(queue)
                                     : virtqueue_has_available(queue) || virtqueue_arm(queue);
    virtio_net_watch_tap(net, has_buffers);
    if (needs_buffers && has_buffers)
        (void)eventfd_write(net->pci.queues[VIRTIO_NET_RECEIVE].notify_fd, 1);
}

enum transmission { TRANSMISSION_DONE, TRANSMISSION_TAP_FULL };

/* What the tap refuses for another reason than being full is the guest's malformed packet. */
static enum transmission transmit_chain(struct virtio_net *net, struct virtqueue *queue)
{
    struct virtqueue_span span = {.part = VIRTQUEUE_READABLE, .len = net->chain.readable_bytes};

    if (span.len <= VIRTIO_NET_HEADER_BYTES || span.len > VIRTIO_NET_PACKET_BYTES)
        return TRANSMISSION_DONE;
    int count = virtqueue_chain_span(queue, &net->chain, span, net->iovs, VIRTIO_REQUEST_IOVS);
    if (count > 0 && writev(net->tap.fd, net->iovs, count) < 0 && errno == EAGAIN)
        return TRANSMISSION_TAP_FULL;
    return TRANSMISSION_DONE;
}

void virtio_net_transmit(struct virtio_net *net)
{
    struct virtqueue *queue = queue_of(net, VIRTIO_NET_TRANSMIT);
    unsigned sent = 0;

    net->is_transmit_waiting = false;
    virtqueue_disarm(queue);
    do {
        while (sent < PACKETS_PER_TURN && virtqueue_pop(queue, &net->chain) == VIRTQUEUE_CHAIN) {
            if (transmit_chain(net, queue) == TRANSMISSION_TAP_FULL) {
                virtqueue_unpop(queue, 1, 0);
                net->is_transmit_waiting = true;
                break;
            }
            virtqueue_fill(queue, net->chain.head, 0);
            sent++;
        }
    } while (!net->is_transmit_waiting && sent < PACKETS_PER_TURN && virtqueue_arm(queue));

    if (sent > 0)
        publish(net, VIRTIO_NET_TRANSMIT);
    fail_if_broken(net, VIRTIO_NET_TRANSMIT);
    if (sent == PACKETS_PER_TURN)
        (void)eventfd_write(net->pci.queues[VIRTIO_NET_TRANSMIT].notify_fd, 1);
}

static uint8_t control_command(struct virtio_net *net, struct virtqueue *queue)
{
    uint8_t head[2]; /* class, command */

    if (!virtqueue_chain_read(queue, &net->chain, 0, head, sizeof(head)) ||
        head[0] != VIRTIO_NET_CTRL_ANNOUNCE || head[1] != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
        return VIRTIO_NET_ERR;
    atomic_store(&net->is_announcing, false);
    return VIRTIO_NET_OK;
}

void virtio_net_control(struct virtio_net *net)
{
    struct virtqueue *queue = queue_of(net, VIRTIO_NET_CONTROL);
    unsigned done = 0;

    do {
        while (done < PACKETS_PER_TURN && virtqueue_pop(queue, &net->chain) == VIRTQUEUE_CHAIN) {
            uint8_t answer = control_command(net, queue);
            bool has_room = virtqueue_chain_write(queue, &net->chain, 0, &answer, 1);
            virtqueue_fill(queue, net->chain.head, has_room ? 1 : 0);
            done++;
        }
    } while (done < PACKETS_PER_TURN && virtqueue_arm(queue));
    if (done > 0)
        publish(net, VIRTIO_NET_CONTROL);
    fail_if_broken(net, VIRTIO_NET_CONTROL);
    if (done == PACKETS_PER_TURN)
        (void)eventfd_write(net->pci.queues[VIRTIO_NET_CONTROL].notify_fd, 1);
}
