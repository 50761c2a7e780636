# SPDX-License-Identifier: Apache-2.0
"""The whole lab: builds the images, starts the three hosts, connects them, stops them."""

import pathlib
import shutil
import tempfile
import time

from ferrylab import images, kernel, network, paths, storage
from ferrylab.emulator import Emulator
from ferrylab.host import Host

HOST_MEMORY_MIB = 1024
# One CPU a host: with two, emulation threads that run a nested guest at once crash or hang the
# host within a minute of load, one run in three. A guest may still have several vCPUs.
HOST_CPUS = 1
WITNESS_MEMORY_MIB = 256
SCRATCH_MIB = 4096
NEEDED = ("qemu-system-x86_64", "qemu-img", "busybox", "mksquashfs", "cpio", "depmod", "mke2fs",
          "cc", "apt-get", "dpkg-deb", "ip", "tc", "bridge", "sqlite3", "e2fsck")


class Site:
    """A running lab; use it in a `with` statement, which also stops it."""

    downtime_ms = 4000  # emulated hosts encrypt and compress at a few MiB/s

    def __init__(self, build_folder):
        images.require(NEEDED)
        self.kernel = kernel.fetch()
        programs = images.compile_programs()
        self.host_initramfs = images.host_initramfs(self.kernel, programs)
        self.guest_initramfs = images.guest_initramfs(self.kernel, programs)
        self.tools = images.tools_squashfs()
        self.ferry = images.ferry_squashfs(build_folder)
        (paths.CACHE / "run").mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="run.", dir="/tmp"))
        self.emulators = {name: Emulator(name, self.folder) for name in network.HOSTS}
        self.hosts = {name: Host(name, emulator) for name, emulator in self.emulators.items()}
        self.a, self.b = self.hosts["host-a"], self.hosts["host-b"]
        self.witness = self.hosts["witness"]
        self.ready_seconds = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *unused):
        self.stop()

    def start(self):
        """Boots all hosts side by side and sets them up."""
        started = time.monotonic()
        for name in network.HOSTS:
            self.start_emulator(name)
        for name, host in self.hosts.items():
            self.emulators[name].wait_until_up()
            host.set_up_network()
        storage.serve(self.witness)
        for host in (self.a, self.b):
            self.prepare(host)
        self.ready_seconds = time.monotonic() - started

    def start_emulator(self, name):
        """Starts one host; the cables that it listens on are there afterwards."""
        emulator = self.emulators[name]
        is_witness = name == "witness"
        cards, listens = network.cards(name, self.folder)
        scratch = images.scratch_disk(self.folder / f"{name}.scratch", SCRATCH_MIB)
        drives = [(self.tools, "readonly=on"), (self.ferry, "readonly=on"), (scratch, "")]
        emulator.start(self.kernel, self.host_initramfs,
                       WITNESS_MEMORY_MIB if is_witness else HOST_MEMORY_MIB,
                       HOST_CPUS, drives, cards)
        for path in listens:
            emulator.wait_for_socket(path)

    def prepare(self, host):
        """Gives a host what a virtual machine needs: KVM, shared storage, a tap, boot files."""
        storage.mount(host)
        host.run(f"modprobe kvm_amd && modprobe tun && mkdir -p /srv/boot && "
                 f"{network.IP} tuntap add tap0 mode tap && "
                 f"{network.IP} link set tap0 master guests up")
        host.put(self.kernel.image, "/srv/boot/vmlinuz")
        host.put(self.guest_initramfs, "/srv/boot/initramfs")

    def cpu_seconds(self):
        """CPU time that all hosts have used."""
        return sum(emulator.cpu_seconds() for emulator in self.emulators.values())

    def check_alive(self):
        """Raises if any host's emulator has died."""
        for emulator in self.emulators.values():
            emulator.check_alive()

    def check_clocks(self):
        """Raises if time went by otherwise on any host."""
        for emulator in self.emulators.values():
            emulator.check_clock()

    def stop(self):
        """Stops the hosts and removes what they wrote."""
        for emulator in self.emulators.values():
            emulator.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
