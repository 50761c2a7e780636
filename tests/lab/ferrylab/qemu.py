# SPDX-License-Identifier: Apache-2.0
"""Debian's QEMU doing the same jobs in the same scenarios: the yardstick for figures.

It also tells a fault of the lab from a fault of Ferry: a scenario that fails with both is the
lab's. Machines use the same kernel, initramfs, disk and tap as Ferry's.
"""

import shlex
import time

from ferrylab import network
from ferrylab.trouble import Failure

MIGRATION_PORT = 7421
MONITOR_PORT = 7422


class Qemu:
    """QEMU on the hosts of a site, with KVM."""

    name = "qemu"

    def __init__(self, site):
        self.site = site

    def prepare(self):
        """Nothing: no certificates, no daemon."""

    def create_disk(self, host, machine):
        """An empty qcow2 image on shared storage."""
        host.run(f"qemu-img create -q -f qcow2 {machine.disk} {machine.disk_mib}M")

    def launch(self, host, machine, extra=""):
        """Starts the emulator, running or waiting for state."""
        words = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35", "-nodefaults",
                 "-display", "none", "-no-reboot", "-smp", str(machine.vcpus),
                 "-m", str(machine.memory_mib), "-kernel", machine.kernel, "-initrd",
                 machine.initramfs, "-append", machine.command_line(), "-L",
                 "/tools/usr/share/qemu", "-serial", f"file:{machine.console_log()}", "-monitor",
                 f"tcp:127.0.0.1:{MONITOR_PORT},server=on,wait=off"]
        if machine.disk_check:
            words += ["-drive", f"file={machine.disk},format=qcow2,if=virtio,cache=none"]
        if machine.has_network:
            words += ["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no", "-device",
                      f"virtio-net-pci,netdev=net0,romfile=,mac={machine.mac}"]
        host.start(machine.name, " ".join(shlex.quote(word) for word in words) + " " + extra)

    def boot(self, host, machine):
        """Boots a machine."""
        if machine.disk_check:
            self.create_disk(host, machine)
        self.launch(host, machine)

    def is_alive(self, host, machine):
        """Whether the machine's process is there."""
        return host.is_running(machine.name)

    def monitor(self, host, line):
        """Runs a command of QEMU's monitor."""
        return host.run(f"(echo {shlex.quote(line)}; sleep 0.3) | nc 127.0.0.1 {MONITOR_PORT}")

    def migrate(self, machine, source, target):
        """Moves a running machine; returns what QEMU says about it."""
        self.launch(target, machine, f"-incoming tcp:0.0.0.0:{MIGRATION_PORT}")
        target.wait_for("qemu listens", lambda: f":{MIGRATION_PORT}" in
                        target.run("netstat -ltn"), 60)
        started = time.monotonic()
        address = network.MIGRATION_LAN[target.name]
        self.monitor(source, f"migrate -d tcp:{address}:{MIGRATION_PORT}")
        source.wait_for("qemu has migrated", lambda: self.is_migrated(source), 300)
        total = time.monotonic() - started
        source.kill(machine.name)
        return {"total_ms": total * 1000}

    def is_migrated(self, source):
        """Polls the source's word on the migration."""
        status = self.monitor(source, "info migrate")
        if "status: failed" in status:
            raise Failure(f"qemu failed to migrate:\n{status}")
        return "status: completed" in status
