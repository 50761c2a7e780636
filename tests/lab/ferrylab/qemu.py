# SPDX-License-Identifier: Apache-2.0
"""Debian's QEMU doing the same jobs in the same scenarios: the yardstick for figures.

It also tells a fault of the lab from a fault of Ferry: a scenario that fails with both is the
lab's. Machines use the same kernel, initramfs, disk and tap as Ferry's.
"""

import re
import shlex

from ferrylab import network
from ferrylab.trouble import Failure

MIGRATION_PORT = 7421
MONITOR_PORT = 7422
SAVED = "/var/lib/saved"


class Qemu:
    """QEMU on the hosts of a site, with KVM."""

    name = "qemu"
    store = SAVED

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
                 f"tcp:127.0.0.1:{MONITOR_PORT},server=on,wait=off",
                 "-device", "virtio-rng-pci"]
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
        command = f"(echo {shlex.quote(line)}; sleep 0.3) | nc 127.0.0.1 {MONITOR_PORT}"
        return host.try_run(command).out.replace("\r", "")

    def start_migration(self, machine, source, target):
        """Starts moving a machine and returns at once."""
        self.launch(target, machine, f"-incoming tcp:0.0.0.0:{MIGRATION_PORT}")
        target.wait_for("qemu listens", lambda: f":{MIGRATION_PORT}" in
                        target.run("netstat -ltn"), 60)
        address = network.MIGRATION_LAN[target.name]
        self.monitor(source, f"migrate -d tcp:{address}:{MIGRATION_PORT}")

    def cancel_migration(self, source, machine):
        """Stops a move that is under way."""
        self.monitor(source, "migrate_cancel")

    def finish_migration(self, source):
        """Waits for the end of a move; returns what QEMU says about it."""
        source.wait_for("qemu has migrated", lambda: self.is_migrated(source), 300)
        status = self.monitor(source, "info migrate")
        self.monitor(source, "quit")
        downtime = re.search(r"^downtime: (\d+) ms", status, re.M)
        return {"blackout told by qemu": (float(downtime.group(1)), "ms")}

    def is_migrated(self, source):
        """Polls the source's word on the migration."""
        status = self.monitor(source, "info migrate")
        if "status: failed" in status or "status: cancelled" in status:
            raise Failure(f"qemu failed to migrate:\n{status}")
        return "status: completed" in status

    def save(self, host, machine):
        """Stops, writes memory to a file and goes on: what QEMU offers without its own disks."""
        self.monitor(host, "stop")
        self.monitor(host, f"migrate exec:cat>{SAVED}")
        host.wait_for("qemu has saved", lambda: self.is_migrated(host), 300)
        host.run(f"cp {machine.disk} {machine.disk}.saved")
        self.monitor(host, "cont")
        return SAVED, {}

    def verify(self, host, snapshot):
        """QEMU has no way to verify a saved machine."""

    def kill(self, host, machine):
        """Kills the emulator outright."""
        host.kill(machine.name)
        host.wait_for("the machine is gone", lambda: not host.is_running(machine.name), 30)

    def press_power_button(self, host, machine):
        """Tells the guest by ACPI."""
        self.monitor(host, "system_powerdown")

    def grow_disk(self, host, machine, mib):
        """Makes the checks' disk so large while the guest runs."""
        self.monitor(host, f"block_resize virtio0 {mib}M")

    def quit(self, host, machine):
        """Ends a machine, if it is there."""
        host.kill(machine.name)

    def restore(self, host, machine, snapshot):
        """Brings the saved state back."""
        host.run(f"mv {machine.disk}.saved {machine.disk}")
        self.launch(host, machine, f"-incoming 'exec:cat {snapshot}'")
        host.wait_for("qemu has loaded", lambda: re.search(
            r"VM status: (paused$|running)", self.monitor(host, "info status"), re.M), 120)
        self.monitor(host, "cont")
        return {}

    def state(self, host, machine):
        """What the machine says it is doing."""
        if not host.is_running(machine.name):
            return "gone"
        return "running" if "running" in self.monitor(host, "info status") else "paused"
