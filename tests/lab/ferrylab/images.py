# SPDX-License-Identifier: Apache-2.0
"""The images that lab machines boot from, rebuilt when something in them has changed.

    host.initramfs   busybox, kernel modules, labd: enough for a host to come up
    tools.squashfs   iproute2 and Debian's QEMU, which serves as a yardstick
    ferry.squashfs   the programs under test with their libraries; remade at each start (1 s)
    guest.initramfs  what a guest boots: busybox, virtio drivers, labd, the check programs
"""

import hashlib
import os
import pathlib
import shutil

from ferrylab import paths, shell
from ferrylab.tree import Tree, shared_libraries
from ferrylab.trouble import LabTrouble, LabUnavailable

CFLAGS = [f"-I{paths.REPOSITORY}", "-std=gnu17", "-O2", "-static", "-Wall", "-Wextra", "-Werror"]

HOST_MODULES = """virtio_pci virtio_blk virtio_net virtio_rng squashfs kvm_amd tun vhost_net
    vhost_vsock bridge veth nfsd nfsv4 sch_netem sch_tbf tls""".split()
CHECKS = "memcheck diskcheck clockcheck tcpserve tcpcount udpecho udpprobe".split()
GUEST_MODULES = "virtio_pci virtio_blk virtio_net virtio_rng virtio_balloon button evdev".split()

QEMU = "/usr/bin/qemu-system-x86_64"
FIRMWARE = ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/kvmvapic.bin",
            "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/pvh.bin"]


def digest(*parts):
    """A short name for what went into an image: texts as they are, files by size and time."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, pathlib.Path) and part.suffix not in (".c", ".h", ".py", ""):
            status = part.stat()
            part = f"{part} {status.st_size} {status.st_mtime_ns}"
        elif isinstance(part, pathlib.Path):
            part = part.read_text(errors="replace")
        state.update(str(part).encode())
    return state.hexdigest()[:16]


def when_changed(image, key, build):
    """Calls `build` unless `image` was built from the same parts before; returns the image."""
    stamp = pathlib.Path(f"{image}.key")
    if not image.exists() or not stamp.exists() or stamp.read_text() != key:
        build(image)
        stamp.write_text(key)
    return image


def compile_programs():
    """Builds the agent and the checks; static, because hosts and guests share no libraries."""
    folder = paths.CACHE / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    agent = paths.LAB / "agent"
    guest = paths.LAB / "guest"
    sources = {
        "labd": [agent / "labd.c", agent / "agent_frame.c"],
        "labc": [agent / "labc.c", agent / "agent_frame.c"],
        "checks": sorted(guest.glob("*.c")),
    }
    for name, files in sources.items():
        headers = sorted(files[0].parent.glob("*.h"))
        when_changed(folder / name, digest(*files, *headers, *CFLAGS),
                     lambda image, files=files: shell.run("cc", *CFLAGS, "-o", image, *files))
    return folder


def add_busybox_and_agent(tree, programs):
    """What both hosts and guests need to run a command."""
    tree.make_folders("dev", "proc", "sys", "tmp", "run/checks", "etc", "root", "sbin", "mnt")
    tree.add("/bin/busybox", "bin/busybox")
    tree.add(programs / "labd", "bin/labd")
    tree.add(programs / "checks", "bin/checks")
    for check in CHECKS:
        tree.link(f"bin/{check}", "checks")


def host_initramfs(kernel, programs):
    """The root file system of a lab host."""
    init = paths.LAB / "host" / "init"

    def build(image):
        tree = Tree(paths.CACHE / "host.root")
        add_busybox_and_agent(tree, programs)
        tree.add(programs / "labc", "bin/labc")
        tree.add_modules(kernel, HOST_MODULES)
        tree.add(init, "init")
        tree.make_folders("tools", "ferry", "srv", "var/lib")
        tree.link("sbin/ip", "/tools/bin/ip")
        tree.link("sbin/tc", "/tools/bin/tc")
        tree.link("lib64", "tools/lib64")
        tree.link("usr", "tools/usr")
        tree.pack_initramfs(image)

    key = digest(kernel.version, init, *programs_key(programs), paths.LAB / "ferrylab/images.py")
    return when_changed(paths.CACHE / "host.initramfs", key, build)


def programs_key(programs):
    """Stamps of the compiled programs."""
    return [(programs / f"{name}.key").read_text() for name in ("labd", "labc", "checks")]


def guest_initramfs(kernel, programs):
    """The root file system of a lab guest."""
    init = paths.LAB / "guest" / "init"
    data_disk = paths.LAB / "guest" / "data_disk"

    def build(image):
        tree = Tree(paths.CACHE / "guest.root")
        add_busybox_and_agent(tree, programs)
        tree.add_modules(kernel, GUEST_MODULES)
        tree.add(init, "init")
        tree.add(data_disk, "bin/data_disk")
        tree.pack_initramfs(image)

    key = digest(kernel.version, init, data_disk, *programs_key(programs),
                 paths.LAB / "ferrylab/images.py")
    return when_changed(paths.CACHE / "guest.initramfs", key, build)


def tools_squashfs():
    """Debian's own programs for a host: the network tools, and QEMU to compare with."""
    programs = ["/sbin/ip", "/sbin/tc", "/sbin/bridge", QEMU, "/usr/bin/qemu-img"]

    def build(image):
        tree = Tree(paths.CACHE / "tools.root")
        for program in programs:
            tree.add_program(program, "bin", "lib")
        loader = next(path for path in shared_libraries(QEMU) if "ld-linux" in path)
        tree.add(loader, f"lib64/{os.path.basename(loader)}")
        for path in FIRMWARE:
            tree.add(path, f"usr/share/qemu/{os.path.basename(path)}")
        tree.pack_squashfs(image)
        shutil.rmtree(tree.folder)

    stamps = [f"{path} {os.stat(path).st_size} {os.stat(path).st_mtime}" for path in programs]
    key = digest(*stamps, *FIRMWARE, paths.LAB / "ferrylab/images.py")
    return when_changed(paths.CACHE / "tools.squashfs", key, build)


def ferry_squashfs(build_folder):
    """The programs under test."""
    programs = sorted(path for path in build_folder.rglob("vm-*")
                      if path.is_file() and os.access(path, os.X_OK))
    tree = Tree(paths.CACHE / "ferry.root")
    tree.make_folders("bin", "lib")
    for program in programs:
        tree.add_program(program, "bin", "lib")
    image = paths.CACHE / "ferry.squashfs"
    tree.pack_squashfs(image)
    return image


def scratch_disk(path, mebibytes):
    """An empty ext4 disk, sparse, for what a host writes."""
    with open(path, "wb") as disk:
        disk.truncate(mebibytes << 20)
    shell.run("/sbin/mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", path)
    return path


def require(programs):
    """Says early, and in one line, what is not installed."""
    missing = [name for name in programs if not shutil.which(name, path=os.environ["PATH"]
                                                             + ":/sbin:/usr/sbin")]
    if missing:
        raise LabUnavailable(f"not installed: {', '.join(missing)}; 'sh tests/run' installs them")
