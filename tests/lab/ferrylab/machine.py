# SPDX-License-Identifier: Apache-2.0
"""What a scenario wants a virtual machine to be, whichever program runs it."""

import dataclasses

from ferrylab import network, storage


@dataclasses.dataclass(frozen=True)
class Machine:
    """A guest: a stock Debian kernel with the lab's initramfs, and what its checks do."""
    name: str = "web"
    memory_mib: int = 128
    vcpus: int = 2
    # What the checks do is chosen for emulated hosts, whose TLS carries 2 MiB/s when the machine is
    # busy: a guest that writes faster than that can not be moved. Disk writes are few because each
    # costs as much as a thousand pages.
    memory_check: str = "4,200"  # MiB, pages a second; empty for none
    disk_check: str = "8"          # writes a second; empty for no disk
    has_data_disk: bool = False     # see data_disk.py
    has_network: bool = True
    mac: str = "52:54:00:12:34:56"

    kernel: str = "/srv/boot/vmlinuz"
    initramfs: str = "/srv/boot/initramfs"
    disk_mib: int = 64

    @property
    def disk(self):
        """Path of the disk, the same on all hosts."""
        return f"{storage.PATH}/{self.name}.qcow2"

    @property
    def data_disk(self):
        """Path of the data disk as the machine is first booted, the same on all hosts."""
        return f"{storage.PATH}/{self.name}-data.qcow2"

    def drivers(self):
        """The drivers that its guest must have bound."""
        return ({"virtio_rng"} | ({"virtio_blk"} if self.disk_check or self.has_data_disk else set())
                | ({"virtio_net"} if self.has_network else set()))

    def console_log(self):
        """Where the serial console of the guest goes, on each host."""
        return f"/run/lab/{self.name}.console"

    def command_line(self):
        """The kernel command line.

        `quiet` matters: each character on the console costs an exit, and exits are slow here.
        """
        words = ["console=ttyS0", "quiet", "panic=-1", "tsc=reliable", "no_timer_check",
                 "random.trust_cpu=on", "cryptomgr.notests"]
        if self.has_network:
            words.append(f"lab.ip={network.GUEST_ADDRESS}/24")
        if self.memory_check:
            words.append(f"lab.memory={self.memory_check}")
        if self.disk_check:
            words.append(f"lab.disk={self.disk_check}")
        if self.has_data_disk:
            words.append("lab.data=/dev/vdb" if self.disk_check else "lab.data=/dev/vda")
        return " ".join(words)
