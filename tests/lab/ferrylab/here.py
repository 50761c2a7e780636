# SPDX-License-Identifier: Apache-2.0
"""The lab's site made of namespaces of this machine: for a KVM that runs Linux guests natively.

Hosts, cables and addresses are those of the emulated site, so the same scenarios run on both.
Without root everything happens in a user namespace of its own.
"""

import os
import pathlib
import shutil
import sys
import tempfile
import time

from ferrylab import images, kernel, network, shell
from ferrylab.host import Host
from ferrylab.namespace import Namespace

ENTERED = "FERRY_LAB_IN_NAMESPACE"
NEEDED = ("unshare", "nsenter", "busybox", "qemu-img", "ip", "cc", "cpio", "depmod")


def enter():
    """Starts this program again in namespaces of its own, which its end takes down.

    The process namespace matters: when its first process ends, the kernel ends all others, so a
    scenario that was killed leaves no machine running. That first process is a shell, which
    collects the processes that lost their parents.
    """
    if os.environ.get(ENTERED):
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    os.execvpe("unshare", ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--mount-proc",
                           "--kill-child", "sh", "-c", '"$@"; exit $?', "sh", sys.executable,
                           *sys.argv], {**os.environ, ENTERED: "1"})


class HereSite:
    """Three namespaces with cables between them; the interface is that of Site."""

    downtime_ms = 300

    def __init__(self, build_folder):
        images.require(NEEDED)
        self.kernel = kernel.fetch()
        self.programs = images.compile_programs()
        self.guest_initramfs = images.guest_initramfs(self.kernel, self.programs)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ferry-here."))
        search_path = f"{build_folder / 'bin'}:{self.folder / 'bin'}:{os.environ['PATH']}:/sbin"
        self.places = {name: Namespace(name, self.folder, search_path) for name in network.HOSTS}
        self.hosts = {name: Host(name, place) for name, place in self.places.items()}
        self.a, self.b = self.hosts["host-a"], self.hosts["host-b"]
        self.witness = self.hosts["witness"]
        self.ready_seconds = None

    def start(self):
        """Creates the hosts, connects them and sets them up."""
        started = time.monotonic()
        self.install_programs()
        srv = self.folder / "srv"
        for folder in ("shared", "boot"):
            (srv / folder).mkdir(parents=True)
        shutil.copy(self.kernel.image, srv / "boot" / "vmlinuz")
        shutil.copy(self.guest_initramfs, srv / "boot" / "initramfs")
        hosts_file = self.folder / "hosts"
        hosts_file.write_text(network.HOSTS_FILE)
        for place in self.places.values():
            place.start(srv)
        for cable in network.CABLES:
            self.connect(cable)
        for host in self.hosts.values():
            host.run(f"mount --bind {hosts_file} /etc/hosts")
            host.run(" && ".join(network.setup_commands(host.name)))
        for host in (self.a, self.b):
            host.run(f"{network.IP} tuntap add tap0 mode tap && "
                     f"{network.IP} link set tap0 master guests up")
        self.ready_seconds = time.monotonic() - started

    def install_programs(self):
        """The small programs that hosts of the lab have: busybox for what is missing here."""
        folder = self.folder / "bin"
        folder.mkdir()
        for name in images.CHECKS:
            (folder / name).symlink_to(self.programs / "checks")
        (folder / "labc").symlink_to(self.programs / "labc")
        for name in ("killall", "netstat", "nc"):
            (folder / name).symlink_to(shutil.which("busybox"))

    def connect(self, cable):
        """A pair of virtual cards, one end in each host."""
        (left, left_card), (right, right_card) = cable.listener, cable.caller
        shell.run(network.IP, "link", "add", left_card, "netns", self.places[left].process.pid,
                  "type", "veth", "peer", "name", right_card, "netns",
                  self.places[right].process.pid)

    def check_alive(self):
        """Nothing here dies by itself."""

    def check_clocks(self):
        """There is one clock here."""

    def stop(self):
        """Ends the hosts and removes what they wrote."""
        for place in self.places.values():
            place.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
