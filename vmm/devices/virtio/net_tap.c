/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_tap.c - opens tap interfaces and sets their headers and offloads.
 */
#include "vmm/devices/virtio/net_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"

#define HEADER_BYTES 12

static const char *remedy(int errnum)
{
    switch (errnum) {
    case EPERM:
    case EACCES:
        return "; make one that you may use: ip tuntap add dev NAME mode tap user $USER vnet_hdr";
    case EBUSY: return "; another process has it open: give each machine its own";
    default: return "";
    }
}

/* What packets look like, and whether offloads can be set at all. */
static struct err *set_up(int fd, struct net_tap *out_tap)
{
    int header_bytes = HEADER_BYTES;
    int is_little_endian = 1;

    if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 ||
        ioctl(fd, TUNSETVNETLE, &is_little_endian) < 0)
        return err_errno(errno, "set the size of a tap interface's packet header");
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_errno(errno, "make a tap interface non-blocking");
    out_tap->fd = fd;
    out_tap->has_offload = ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) == 0;
    return NULL;
}

struct err *net_tap_open(const char *name, struct net_tap *out_tap)
{
    struct ifreq request = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)};

    if (name[0] == '\0' || strlen(name) >= sizeof(request.ifr_name))
        return err_new(ERR_INVALID, "tap interface '%s': a name has 1 to %zu characters", name,
                       sizeof(request.ifr_name) - 1);
    CLEANUP(cleanup_fd) int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(errno, "open /dev/net/tun for interface '%s'", name);
    memcpy(request.ifr_name, name, strlen(name));
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        int errnum = errno;
        return err_errno(errnum, "open tap interface '%s'%s", name, remedy(errnum));
    }
    struct err *err = set_up(fd, out_tap);
    if (err != NULL)
        return err_wrap(err, "tap interface '%s'", name);

    (void)TAKE_FD(fd);
    return NULL;
}

struct err *net_tap_adopt(int fd, struct net_tap *out_tap)
{
    struct ifreq request = {.ifr_flags = 0};

    if (ioctl(fd, TUNGETIFF, &request) < 0)
        return err_errno(errno, "network descriptor: not a tap interface");
    unsigned flags = (unsigned short)request.ifr_flags;
    if ((flags & IFF_TAP) == 0 || (flags & IFF_NO_PI) == 0 || (flags & IFF_VNET_HDR) == 0)
        return err_new(ERR_INVALID,
                       "tap interface '%s': opened with flags 0x%x; open it with IFF_TAP, "
                       "IFF_NO_PI and IFF_VNET_HDR",
                       request.ifr_name, flags);
    return set_up(fd, out_tap);
}

struct err *net_tap_set_offload(const struct net_tap *tap, unsigned offloads)
{
    unsigned flags = 0;

    flags |= (offloads & NET_OFFLOAD_CHECKSUM) != 0 ? TUN_F_CSUM : 0;
    flags |= (offloads & NET_OFFLOAD_TSO4) != 0 ? TUN_F_TSO4 : 0;
    flags |= (offloads & NET_OFFLOAD_TSO6) != 0 ? TUN_F_TSO6 : 0;
    flags |= (offloads & NET_OFFLOAD_ECN) != 0 ? TUN_F_TSO_ECN : 0;
    if (ioctl(tap->fd, TUNSETOFFLOAD, (unsigned long)flags) < 0)
        return err_errno(errno, "set the offloads of a tap interface to 0x%x", flags);
    return NULL;
}
