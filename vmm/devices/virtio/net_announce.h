/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_announce.h - the broadcast that tells switches where a card is.
 */
#ifndef VMM_DEVICES_VIRTIO_NET_ANNOUNCE_H
#define VMM_DEVICES_VIRTIO_NET_ANNOUNCE_H

#include <stdint.h>

#define NET_ANNOUNCE_BYTES  60u /* the least that an Ethernet frame has */
#define NET_ANNOUNCE_ROUNDS 5u

/* A RARP request of the card for itself. */
void net_announce_frame(const uint8_t mac[6], uint8_t out_frame[NET_ANNOUNCE_BYTES]);

/* How long after the one before it each repetition is sent: switches may still be learning. */
uint64_t net_announce_delay_ns(unsigned round);

#endif
