/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_announce.c - RARP (RFC 903): answered by nobody, learned from by every switch on the way.
 */
#include "vmm/devices/virtio/net_announce.h"

#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"

#define ETHERTYPE_RARP  0x8035u
#define HARDWARE_ETHER  1u
#define PROTOCOL_IPV4   0x0800u
#define REQUEST_REVERSE 3u

void net_announce_frame(const uint8_t mac[6], uint8_t out_frame[NET_ANNOUNCE_BYTES])
{
    const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct writer out = writer_of(out_frame, NET_ANNOUNCE_BYTES);

    memset(out_frame, 0, NET_ANNOUNCE_BYTES);
    writer_bytes(&out, broadcast, sizeof(broadcast));
    writer_bytes(&out, mac, 6);
    writer_be16(&out, ETHERTYPE_RARP);
    writer_be16(&out, HARDWARE_ETHER);
    writer_be16(&out, PROTOCOL_IPV4);
    writer_u8(&out, 6);
    writer_u8(&out, 4);
    writer_be16(&out, REQUEST_REVERSE);
    writer_bytes(&out, mac, 6);
    writer_be32(&out, 0);
    writer_bytes(&out, mac, 6);
    writer_be32(&out, 0);
}

uint64_t net_announce_delay_ns(unsigned round)
{
    return round == 0 ? (uint64_t)50 * NS_PER_MS : (uint64_t)100 * NS_PER_MS;
}
