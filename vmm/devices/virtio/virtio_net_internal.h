/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net_internal.h - the card as its device, its queues and its state see it.
 */
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_NET_INTERNAL_H
#define VMM_DEVICES_VIRTIO_VIRTIO_NET_INTERNAL_H

#include "base/lock.h"
#include "vmm/devices/virtio/virtio_net.h"
#include "vmm/devices/virtio/virtio_pci.h"

#define VIRTIO_NET_HEADER_BYTES 12u
#define VIRTIO_NET_PACKET_BYTES (VIRTIO_NET_HEADER_BYTES + 65536u + 64u)

enum { VIRTIO_NET_RECEIVE, VIRTIO_NET_TRANSMIT, VIRTIO_NET_CONTROL, VIRTIO_NET_QUEUES };

struct event_loop;
struct event_source;
struct thread;

struct virtio_net {
    struct virtio_pci pci;
    struct net_tap tap; /* its fd is owned */
    uint8_t mac[6];
    _Atomic bool is_announcing; /* a flag alone: asked of the guest, which acknowledges */
    bool must_announce;         /* changed only while halted */

    struct event_loop *loop; /* owned; the net thread's */
    struct thread *thread;   /* owned */
    int wake_fd;             /* owned; says that is_wanted has changed */
    struct lock lock;
    struct lock_condition changed;
    bool is_wanted GUARDED_BY(&lock);  /* run or halt, as asked for */
    bool is_running GUARDED_BY(&lock); /* as the net thread has carried out */

    /* The net thread's own. */
    bool is_active;                                  /* its idea of is_running */
    struct event_source *sources[VIRTIO_NET_QUEUES]; /* owned by the loop: notifications */
    struct event_source *tap_source;                 /* likewise; NULL: the interface is gone */
    struct event_source *wake_source;                /* likewise */
    struct event_source *announce_timer;             /* likewise */
    unsigned announcements_left;
    bool is_transmit_waiting; /* the tap was full */
    size_t packet_bytes;      /* read from the tap and not delivered; 0: none */
    uint8_t packet[VIRTIO_NET_PACKET_BYTES];
    struct virtqueue_chain first; /* of a packet that needs several buffers */
    struct virtqueue_chain chain;
    struct iovec iovs[VIRTIO_REQUEST_IOVS];
};

/* On the net thread, while active. */
void virtio_net_receive(struct virtio_net *net);
void virtio_net_transmit(struct virtio_net *net);
void virtio_net_control(struct virtio_net *net);
/* Watches the tap for what there is to wait for. */
void virtio_net_watch_tap(struct virtio_net *net, bool wants_packets);

ERR_RESULT virtio_net_save(struct device *device, ProtobufCMessage **out_state);
ERR_RESULT virtio_net_validate(struct device *device, uint32_t version,
                               const ProtobufCMessage *state);
ERR_RESULT virtio_net_apply(struct device *device, const ProtobufCMessage *state);

#endif
