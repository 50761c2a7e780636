# SPDX-License-Identifier: Apache-2.0
"""Shared storage at one path on both hosts: NFS 4.2, served by the witness's kernel.

The kernel's server needs no program of its own when the answers that rpc.mountd would give are
written into its caches beforehand, and the client's mount options are plain text for the kernel.
File locks go through the server, so a lock that one host holds is seen by the other. The server
is a third machine: storage must survive the death of either host.
"""

from ferrylab import network

PATH = "/srv/shared"
NEVER = 2147483647
EXPORT_FLAGS = 0x2000 | 0x400 | 0x2  # fsid given, no subtree check, any port; root stays root


SERVE = f"""set -e
mkdir -p /var/lib/shared
chmod 1777 /var/lib/shared
# Where the server remembers its clients; without it, it would insist on a grace period.
mkdir -p /var/lib/nfs/v4recovery
modprobe nfsd
mount -t nfsd nfsd /proc/fs/nfsd
cd /proc/fs/nfsd
echo 10 > nfsv4leasetime
echo 10 > nfsv4gracetime
# Only version 4 serves without a portmapper.
echo '-2 -3 +4 +4.1 +4.2' > versions
echo 'tcp 2049' > portlist
echo 4 > threads
# Nobody held locks before the server's first start: no grace period to wait for.
echo Y > v4_end_grace
cd /proc/net/rpc
echo 'nfsd {network.STORAGE_LAN["host-a"]} {NEVER} lab' > auth.unix.ip/channel
echo 'nfsd {network.STORAGE_LAN["host-b"]} {NEVER} lab' > auth.unix.ip/channel
echo 'lab /var/lib/shared {NEVER} {EXPORT_FLAGS} 65534 65534 0' > nfsd.export/channel
echo 'lab 1 \\x00000000 {NEVER} /var/lib/shared' > nfsd.fh/channel
"""


def serve(witness):
    """Exports a folder of the witness to both hosts."""
    witness.run("sh -x", stdin=SERVE.encode())


def mount(host):
    """Mounts the export, at the same path on every host."""
    server = network.STORAGE_LAN["witness"]
    options = f"vers=4.2,sec=sys,addr={server},clientaddr={network.STORAGE_LAN[host.name]}"
    host.run(f"modprobe nfsv4 && mkdir -p {PATH} && "
             f"mount -t nfs4 -o {options} {server}:/ {PATH}")
