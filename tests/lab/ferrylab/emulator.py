# SPDX-License-Identifier: Apache-2.0
"""The QEMU process that emulates one lab host, with AMD's virtualization extension.

Plain emulation (TCG) needs nothing of the machine that the lab runs on, and emulates SVM well
enough for the kernel's KVM. A host that dies by itself is the emulator's fault and is reported so.
"""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

from ferrylab import agent
from ferrylab.qmp import Qmp
from ferrylab.trouble import EmulatorFault, LabTrouble

# EPYC with SVM, without what TCG would warn about for each vCPU.
CPU = ("EPYC,+svm,+npt,-rdseed,-sha-ni,-xsavec,-3dnowprefetch,-misalignsse,-osvw,-topoext,"
       "-fxsr-opt,-nrip-save")
# tsc=reliable: without it a kernel with two vCPUs gives up the TSC, and KVM its stable clock.
# no_timer_check: on a busy machine the timer comes too late for a check at boot, which panics.
COMMAND_LINE = ("console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check "
                "random.trust_cpu=on")
BOOT_SECONDS_MAX = 180
CLOCK_JUMP_SECONDS = 5
PR_SET_PDEATHSIG = 1


def die_with_parent():
    """A harness that is killed outright leaves no emulator behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Emulator:
    """One running lab host, as seen from outside it."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = pathlib.Path(folder)
        self.port = free_port()
        self.process = None
        self.qmp = None
        self.boot_seconds = None
        self.started_at = None

    def start(self, kernel, initramfs, memory_mib, vcpus, drives, nics):
        """Starts the emulator; `nics` are argument lists of extra network cards."""
        self.serial.unlink(missing_ok=True)
        arguments = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", str(vcpus),
            "-m", str(memory_mib), "-kernel", str(kernel.image), "-initrd", str(initramfs),
            "-append", f"{COMMAND_LINE} lab.host={self.name}", "-nodefaults", "-display", "none",
            "-no-reboot", "-monitor", "none", "-serial", f"file:{self.serial}",
            "-qmp", f"unix:{self.folder / self.name}.qmp,server=on,wait=off",
            "-netdev", f"user,id=control,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:7",
            "-device", "virtio-net-pci,netdev=control,romfile=,mac=52:54:00:fe:ff:ff",
            "-device", "virtio-rng-pci"]
        for drive, access in drives:
            arguments += ["-drive", f"file={drive},format=raw,if=virtio,cache=unsafe,{access}"]
        for nic in nics:
            arguments += nic
        with open(self.folder / f"{self.name}.stderr", "wb") as errors:
            # Popen's preexec_fn is safe here: the harness has one thread.
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=errors,
                                            preexec_fn=die_with_parent)
        self.started_at = time.monotonic()

    @property
    def serial(self):
        """What the host's kernel and init print."""
        return self.folder / f"{self.name}.serial"

    def execute(self, command, stdin=b"", timeout=120):
        """Runs a shell command on the host."""
        return agent.execute(self.port, command, stdin, timeout)

    def is_alive(self):
        """Whether the emulator runs."""
        return self.process is not None and self.process.poll() is None

    def check_alive(self):
        """Raises if the emulator has died."""
        if self.is_alive():
            return
        errors = (self.folder / f"{self.name}.stderr").read_text(errors="replace").strip()
        tail = self.serial.read_text(errors="replace")[-2000:] if self.serial.exists() else ""
        raise EmulatorFault(f"the lab's emulator crashed: host '{self.name}' ended with status "
                              f"{self.process.returncode}\n{errors}\n{tail}".rstrip())

    def check_clock(self):
        """Raises if the host's kernel has lived longer than its emulator: timers fired and
        connections timed out long before their time."""
        output = self.execute("cat /proc/uptime", timeout=20)
        if output.code != 0:
            return
        ahead = float(output.out.split()[0]) - (time.monotonic() - self.started_at)
        if ahead > CLOCK_JUMP_SECONDS:
            raise EmulatorFault(f"the lab's emulator lost its clock: host '{self.name}' is "
                                f"{ahead:.0f} s ahead of time")

    def wait_for_socket(self, path):
        """Waits until the emulator listens on a Unix socket."""
        while not os.path.exists(path):
            self.check_alive()
            if time.monotonic() - self.started_at > BOOT_SECONDS_MAX:
                raise LabTrouble(f"host '{self.name}' does not open '{path}'")
            time.sleep(0.01)

    def wait_until_up(self):
        """Waits for the marker on the serial line.

        Connecting to the agent's port before that makes QEMU's user network retransmit with
        growing delays, which costs seconds.
        """
        while not (self.serial.exists() and b"LAB HOST UP" in self.serial.read_bytes()):
            self.check_alive()
            if time.monotonic() - self.started_at > BOOT_SECONDS_MAX:
                tail = self.serial.read_text(errors="replace")[-2000:]
                raise LabTrouble(f"host '{self.name}' is not up after {BOOT_SECONDS_MAX} s\n{tail}")
            time.sleep(0.03)
        self.boot_seconds = time.monotonic() - self.started_at
        self.qmp = Qmp(f"{self.folder / self.name}.qmp")

    def set_link(self, card, is_up):
        """Plugs or pulls a network cable."""
        self.qmp.call("set_link", name=card, up=is_up)

    def cpu_seconds(self):
        """CPU time that the host has used: what it costs, whatever else the machine does."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Pulls the plug; nothing in a lab host is worth keeping."""
        if self.is_alive():
            self.process.kill()
            self.process.wait()
