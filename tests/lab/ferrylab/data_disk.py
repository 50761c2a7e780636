# SPDX-License-Identifier: Apache-2.0
"""A guest's data disk as people have them: a compressed image from elsewhere, and an overlay on it.

    data.qcow2   ext4 with a folder of files and their checksums, compressed; never written
    overlay      what the guest writes: an SQLite database that commits all the time

The guest says on its console, once a boot, what it found on the disk: whether its file system is
whole after the journal was replayed, whether the files are, and how many rows the database holds.
"""

import re
import shutil

from ferrylab import images, paths, shell, storage
from ferrylab.tree import Tree, shared_libraries
from ferrylab.trouble import Failure

SIZE_MIB = 96
PROGRAMS = ("/usr/bin/sqlite3", "/sbin/e2fsck")
BASE = f"{storage.PATH}/data.qcow2"
TOOLS = "/srv/boot/data-tools"


def image(kernel):
    """The compressed image; its files are kernel modules, which are there and compress well."""
    def build(target):
        tree = Tree(paths.CACHE / "data.root")
        tree.add(kernel.modules / "kernel" / "drivers" / "net", "files")
        tree.write("sums", shell.run("sh", "-c", "find files -type f -exec sha256sum {} +",
                                     cwd=tree.folder))
        raw = target.with_suffix(".raw")
        with open(raw, "wb") as disk:
            disk.truncate(SIZE_MIB << 20)
        shell.run("/sbin/mke2fs", "-q", "-t", "ext4", "-d", tree.folder, raw)
        shell.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, target)
        raw.unlink()
        shutil.rmtree(tree.folder)

    key = images.digest(kernel.version, paths.LAB / "ferrylab/data_disk.py")
    return images.when_changed(paths.CACHE / "data.qcow2", key, build)


def tools():
    """A second initramfs for the guest: SQLite's shell and a checker of file systems."""
    def build(target):
        tree = Tree(paths.CACHE / "data-tools.root")
        for program in PROGRAMS:
            tree.add_program(program, "opt", "lib")
        for path in shared_libraries(PROGRAMS[0]):
            if "ld-linux" in path:
                tree.add(path, "lib64/" + path.rsplit("/", 1)[1])
        tree.pack_initramfs(target)
        shutil.rmtree(tree.folder)

    key = images.digest(*PROGRAMS, paths.LAB / "ferrylab/data_disk.py")
    return images.when_changed(paths.CACHE / "data-tools.initramfs", key, build)


def provide(site, machine):
    """Puts image, overlay and tools where the first host finds them."""
    host = site.a
    host.put(image(site.kernel), BASE)
    host.run(f"chmod 0444 {BASE}")
    host.put(tools(), TOOLS)
    host.run(f"cat /srv/boot/initramfs {TOOLS} > {machine.initramfs}")
    host.run(f"cd {storage.PATH} && qemu-img create -q -f qcow2 -F qcow2 -b data.qcow2 "
             f"{machine.data_disk}")


def keep_as_it_is(host):
    """Keeps a copy of what the guest wrote: its next boot mends what a failure is to be found in."""
    host.run(f"cd {storage.PATH} && rm -rf as-it-was && mkdir as-it-was && "
             "for image in *.qcow2; do test $image = data.qcow2 || cp $image as-it-was; done")


def found_at_boot(host, machine):
    """What the guest found on its data disk when it booted, as a dict of numbers."""
    def said():
        console = host.try_run(f"cat {machine.console_log()} 2>/dev/null").out
        return re.search(r"^DATA DISK (.*)\n", console.replace("\r", ""), re.M)

    found = host.wait_for("the guest has checked its data disk", said, 180)
    return {key: int(value) for key, value in
            (pair.split("=") for pair in found.group(1).split())}


def judge(found, rows_promised):
    """Raises when the disk is not whole, or lacks a row whose commit the guest was told of."""
    if found["fsck"] != 0:
        raise Failure(f"e2fsck finds faults on the data disk (status {found['fsck']})")
    if found["files_bad"] != 0:
        raise Failure("files of the compressed image have changed")
    if found["database_bad"] != 0:
        raise Failure("SQLite finds the database damaged")
    if found["rows"] < rows_promised:
        raise Failure(f"the database has {found['rows']} rows, but {rows_promised} were committed")
