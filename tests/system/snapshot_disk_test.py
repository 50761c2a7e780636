#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disks of saved machines: cut with memory at one instant, sealed, and recognised when altered."""

import os
import pathlib
import shutil
import subprocess

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.program import wait_for

DISK_BYTES = 16 << 20


@needs("vm-save", "vm-restore", "vm-snapshot", "vm-ctl")
class SnapshotDisk(Case):
    """A machine with one disk."""

    def boot_with_disk(self, host, image_format="raw", **settings):
        """The payload guest stamps the disk and remembers the stamps in memory."""
        path = self.folder / f"disk.{image_format}"
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, path, str(DISK_BYTES)],
                       check=True)
        return self.boot(host, disk=path, jobs=("pattern", "disk"), **settings)

    def save_and_end(self):
        """A snapshot of a machine that has ended; its sealed image."""
        host = self.host()
        guest = self.boot_with_disk(host)
        report = host.save("m")
        guest.check(1)
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.wait_for_processes(0)
        return host, guest.jobs, report, pathlib.Path(report["disks"][0]["sealed"])

    @only_kvm
    def test_memory_and_disk_are_of_one_instant_over_many_rounds(self):
        for image_format in ("raw", "qcow2"):
            with self.subTest(format=image_format):
                host = self.host(image_format)
                guest = self.boot_with_disk(host, image_format)
                for _ in range(4):
                    guest.check(1)
                    for _ in range(3):
                        host.save("m")
                    host.run("kill", "-9", host.machines()["m"]["pid"])
                    host.wait_for_state("m", "gone")
                    guest.close()
                    host.run("vm-restore", "m")
                    guest = self.follow(host, "m", guest.jobs)
                guest.check(3)
                for snapshot in host.snapshots("m"):
                    host.run("vm-snapshot", "verify", f"m/{snapshot['id']}")

    @only_kvm
    def test_who_waits_for_the_end_of_a_machine_may_take_its_disk(self):
        host = self.host()
        for _ in range(10):
            guest = self.boot_with_disk(host, "qcow2")
            guest.check(1)
            host.run("vm-ctl", "quit", "m", "--wait", "10")
            host.run("vm-disk", "check", self.folder / "disk.qcow2")
            guest.close()
            host.wait_for_processes(0)

    @only_kvm
    def test_two_machines_of_one_snapshot_do_not_share_a_disk(self):
        host, jobs, report, _ = self.save_and_end()
        names = ("one", "two", "three")
        for name in names:
            host.run("vm-restore", report["snapshot"], "--name", name)
        for name in names:
            self.follow(host, name, jobs).check(3)

    @only_kvm
    def test_images_that_are_named_relatively_or_by_links_are_saved_and_found_again(self):
        bases, images, links = (self.folder / name for name in ("bases", "images", "links"))
        for folder in (bases, images, links):
            folder.mkdir()
        (self.folder / "alias").symlink_to("bases")
        for base in ("one", "two"):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", bases / f"{base}.qcow2",
                            str(DISK_BYTES)], check=True)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                            self.folder / "alias" / f"{base}.qcow2", images / f"{base}.qcow2"],
                           check=True)
        names = {"relative": "images/one.qcow2", "link": links / "today.qcow2"}
        here = pathlib.Path.cwd()
        self.addCleanup(os.chdir, here)
        for name, path in names.items():
            with self.subTest(name=name):
                host = self.host(name)
                (links / "today.qcow2").symlink_to("../images/two.qcow2")
                os.chdir(self.folder)
                guest = self.boot(host, jobs=("pattern", "disk"), arguments=(
                    "--image-folder", "alias", "--disk", f"id=vda,path={path},format=qcow2"))
                os.chdir(here)
                guest.check(1)
                report = host.save("m")
                self.assertEqual(pathlib.Path(report["disks"][0]["sealed"]).parent, images)
                guest.check(1)
                host.run("vm-ctl", "quit", "m", "--wait", "10")
                (links / "today.qcow2").unlink() # leads elsewhere tomorrow
                host.run("vm-snapshot", "verify", "m")
                host.run("vm-restore", "m")
                self.follow(host, "m", guest.jobs).check(2)

    @only_kvm
    def test_clones_of_images_that_nobody_may_write_have_folders_of_their_own(self):
        host = self.host()
        golden = self.folder / "golden"
        golden.mkdir()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", golden / "disk.qcow2",
                        str(DISK_BYTES)], check=True)
        guest = self.boot(host, disk=golden / "disk.qcow2", jobs=("pattern", "disk"))
        snapshots = [host.save("m")["snapshot"] for _ in range(2)]
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        before = sorted(os.listdir(golden))
        read_only = [*(["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]), "sh", "-c",
                     f"mount --bind {golden} {golden} && mount -o remount,ro,bind {golden} || "
                     'exit 9; exec "$@"', "sh"]
        if host.start(*read_only, "true").wait() != 0:
            self.skipTest("no private file systems here")
        vm_restore = host.program_path("vm-restore")
        self.assertIn("--overlay-folder", host.refuse(*read_only, vm_restore, snapshots[0]))
        for name, snapshot in zip(("one", "two"), snapshots):
            folder = self.folder / "clones" / name
            folder.mkdir(parents=True)
            host.run(*read_only, vm_restore, snapshot, "--name", name, "--overlay-folder", folder)
            clone = self.follow(host, name, guest.jobs)
            clone.check(2)
            host.save(name)
            host.run("vm-ctl", "quit", name, "--wait", "10")
            self.assertEqual(len(list(folder.glob("disk.*.qcow2"))), 2)
            host.run("vm-snapshot", "verify", name)
            host.run("vm-restore", name)
            self.follow(host, name, guest.jobs).check(2)
        self.assertEqual(sorted(os.listdir(golden)), before)

    @only_kvm
    def test_layers_that_clones_in_other_folders_stand_on_are_not_removed(self):
        host, jobs, report, _ = self.save_and_end()
        host.run("vm-restore", report["snapshot"])
        self.follow(host, "m", jobs).check(1)
        second = host.save("m")
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        clones = self.folder / "clones"
        clones.mkdir()
        host.run("vm-restore", second["snapshot"], "--name", "clone", "--overlay-folder", clones)
        host.run("vm-ctl", "quit", "clone", "--wait", "10")
        # Nothing else needs it: not the newest, no snapshot's, and in its folder no image's.
        layer, active = (pathlib.Path(second["disks"][0][key]) for key in ("sealed", "active"))
        host.run("vm-restore", report["snapshot"])
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.run("vm-snapshot", "delete", second["snapshot"])
        active.unlink()
        host.run("vm-snapshot", "prune", "--yes")
        self.assertTrue(layer.exists())
        shutil.rmtree(clones)
        host.run("vm-snapshot", "prune", "--yes", "--forget", clones)
        self.assertFalse(layer.exists())

    @only_kvm
    def test_every_file_of_a_disk_is_listed_whatever_its_name(self):
        host = self.host()
        images = pathlib.Path(os.fsdecode(os.fsencode(self.folder) + b"/im\xe4ges")) # not UTF-8
        images.mkdir()
        path = images / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(DISK_BYTES)],
                       check=True)
        self.boot(host, disk=path, jobs=("pattern", "disk"))
        self.assertEqual(len(host.save("m")["disks"]), 1)
        host.save("m")
        disk = host.snapshots("m")[1]["disks"][0]
        named = [pathlib.Path(name).name for name in (disk["path"], *disk["layers"])]
        self.assertEqual(named, ["disk.000001.qcow2", "disk.qcow2"])
        self.assertEqual(len(host.json("vm-restore", "m", "--name", "clone")["disks"]), 1)

    def test_an_image_made_writable_again_is_refused(self):
        host, _, _, sealed = self.save_and_end()
        sealed.chmod(0o600)
        self.assertIn("not sealed", host.refuse("vm-restore", "m"))
        self.assertIn("not sealed", host.refuse("vm-snapshot", "verify", "m"))
        sealed.chmod(0o400)
        host.run("vm-restore", "m")

    def test_an_altered_image_is_refused(self):
        host, _, _, sealed = self.save_and_end()
        status = sealed.stat()
        os.utime(sealed)
        self.assertIn("altered", host.refuse("vm-restore", "m"))
        os.utime(sealed, ns=(status.st_atime_ns, status.st_mtime_ns))
        host.run("vm-restore", "m")

    @only_kvm
    def test_an_altered_image_below_is_refused(self):
        host = self.host()
        base, path = self.folder / "base.raw", self.folder / "disk.qcow2"
        base.write_bytes(os.urandom(DISK_BYTES))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path],
                       check=True)
        self.boot(host, disk=path, jobs=("pattern", "disk")).check(1)
        snapshots = [host.save("m")["snapshot"] for _ in range(3)]
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        # Another build of the base under its name, and a copy of a layer that was cut short.
        for image in (base, self.folder / "disk.000001.qcow2"):
            with self.subTest(image=image.name):
                kept = image.rename(image.with_name("kept"))
                image.write_bytes(kept.read_bytes()[:-4096])
                image.chmod(0o444)
                os.utime(image, ns=(kept.stat().st_atime_ns, kept.stat().st_mtime_ns))
                for command in (("vm-snapshot", "verify"), ("vm-restore",)):
                    said = host.refuse(*command, snapshots[2])
                    self.assertIn(f"'{image}', which was altered", said)
                kept.rename(image)
                host.run("vm-snapshot", "verify", snapshots[2])
        host.run("vm-restore", snapshots[2])
        self.follow(host, "m", ("pattern", "disk")).check(2)

    def test_a_missing_image_is_refused_and_nothing_starts(self):
        host, _, _, sealed = self.save_and_end()
        hidden = sealed.rename(sealed.with_suffix(".hidden"))
        self.assertIn("missing", host.refuse("vm-restore", "m"))
        self.assertEqual(host.machine_processes(), [])
        hidden.rename(sealed)
        host.run("vm-restore", "m")

    def test_a_damaged_part_is_refused_and_nothing_starts(self):
        host, _, report, _ = self.save_and_end()
        folder = pathlib.Path(host.env["FERRY_STATE_DIR"]) / "snapshots" / report["snapshot"]
        before = sorted(self.folder.glob("disk*"))
        for part, place in (("manifest", 40), ("index", 30), ("state", 20)):
            with self.subTest(part=part):
                good = (folder / part).read_bytes()
                bad = bytearray(good)
                bad[place] ^= 1
                (folder / part).write_bytes(bad)
                self.assertIn("damaged", host.refuse("vm-restore", "m"))
                host.refuse("vm-snapshot", "verify", "m")
                (folder / part).write_bytes(good)
        self.assertEqual(host.machine_processes(), [])
        self.assertEqual(sorted(self.folder.glob("disk*")), before)

    @only_kvm
    def test_a_damaged_page_stops_the_machine_and_is_named(self):
        host, _, report, _ = self.save_and_end()
        folder = pathlib.Path(host.env["FERRY_STATE_DIR"]) / "snapshots" / report["snapshot"]
        with open(folder / "memory", "r+b") as memory:
            memory.seek(-4096, os.SEEK_END)
            memory.write(b"damaged")
        self.assertIn("is damaged", host.refuse("vm-restore", "m", "--verify"))
        host.start("vm-restore", "m").wait()
        wait_for("the machine has failed or is gone",
                 lambda: host.state("m") in ("failed", "gone"), 20)


if __name__ == "__main__":
    main()
