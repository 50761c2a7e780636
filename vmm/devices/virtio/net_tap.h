/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_tap.h - the host's end of a guest's network: a tap interface.
 *
 * Each packet has the 12-byte virtio header in front. Thread: any.
 */
#ifndef VMM_DEVICES_VIRTIO_NET_TAP_H
#define VMM_DEVICES_VIRTIO_NET_TAP_H

#include <stdbool.h>

#include "base/err.h"

struct net_tap {
    int fd;           /* non-blocking */
    bool has_offload; /* hands the guest packets without checksum, and large ones, if it may */
};

enum net_offload {
    NET_OFFLOAD_CHECKSUM = 1,
    NET_OFFLOAD_TSO4 = 2,
    NET_OFFLOAD_TSO6 = 4,
    NET_OFFLOAD_ECN = 8,
};

/* Opens an interface by name; errors say how to make one. */
ERR_RESULT net_tap_open(const char *name, struct net_tap *out_tap);
/* Takes a descriptor that somebody else opened: a tap with IFF_VNET_HDR and IFF_NO_PI. It stays
 * the caller's on error. */
ERR_RESULT net_tap_adopt(int fd, struct net_tap *out_tap);

/* A set of NET_OFFLOAD_: what the guest's driver can take. Only with has_offload. */
ERR_RESULT net_tap_set_offload(const struct net_tap *tap, unsigned offloads);

#endif
