#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Layers that nothing needs are removed, and nothing that was saved is lost by it."""

import os
import pathlib
import random
import shutil
import signal
import subprocess

from ferrytest.case import Case, main, needs, only_kvm

DISK_BYTES = 16 << 20
MERGE_FROM = 64  # layers; storage/layer_merge_policy.h
HOLD_STEPS = ("hold layers", "prepare disks", "freeze disks", "write", "publish")


@needs("vm-save", "vm-restore", "vm-snapshot", "vm-ctl", "vm-disk")
class Prune(Case):
    """A machine that is saved, into one store or several, and whose snapshots are deleted."""

    def boot_with_disk(self, host):
        """The payload guest stamps the disk and remembers the stamps in memory."""
        self.images = self.folder / "images"
        self.images.mkdir()
        path = self.images / "disk.raw"
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", path, str(DISK_BYTES)], check=True)
        return self.boot(host, memory=32, disk=path, jobs=("pattern", "disk"))

    def end(self, host, guest):
        """The machine is gone, and holds no image any more."""
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.wait_for_state("m", "gone")
        host.wait_for_processes(0)
        guest.close()

    def layers(self):
        """The numbers of the overlays that there are."""
        return sorted(int(path.name.split(".")[1]) for path in self.images.glob("disk.0*.qcow2"))

    def prune(self, host, *words):
        """Removes what nothing needs."""
        return host.json("vm-snapshot", "prune", "--yes", *words)

    def delete(self, host, snapshots, *words):
        """The newest first: others may add to them."""
        for snapshot in sorted(snapshots, reverse=True):
            host.run("vm-snapshot", "delete", snapshot, *words)

    def check_all(self, host, *words):
        """Every snapshot that is left is whole, and of some the machine is brought back."""
        snapshots = [f"m/{one['id']}" for one in host.json("vm-snapshot", "list", "m", *words)]
        for snapshot in snapshots:
            host.run("vm-snapshot", "verify", snapshot, *words)
        for snapshot in random.sample(snapshots, min(2, len(snapshots))):
            host.run("vm-restore", snapshot, *words)
            guest = self.follow(host, "m", ("pattern", "disk"))
            guest.check(1)
            self.end(host, guest)
        return snapshots

    @only_kvm
    def test_of_many_snapshots_some_are_kept_whichever_they_are(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        saved = [host.save("m", "--no-merge")["snapshot"] for _ in range(24)]
        guest.check(1)
        kept = saved[4::5]
        gone = [snapshot for snapshot in saved if snapshot not in kept]
        self.assertIn("--keep-memory", host.refuse("vm-snapshot", "delete", saved[0]))
        random.shuffle(gone)
        for snapshot in gone:
            host.run("vm-snapshot", "delete", "--keep-memory", snapshot)
        self.prune(host)
        self.assertEqual(host.save("m")["parent"], "") # what it added to is gone
        self.end(host, guest)
        self.assertEqual(self.check_all(host)[:-1], kept)
        tree = host.run("vm-snapshot", "tree", "m").split("\n")
        self.assertEqual([line.split()[0] for line in tree if line][:-1], kept)
        for snapshot in kept: # each added to the one before
            host.run("vm-restore", snapshot)
            guest = self.follow(host, "m", ("pattern", "disk"))
            guest.check(1)
            self.end(host, guest)
        random.shuffle(kept)
        for snapshot in kept:
            host.run("vm-snapshot", "delete", "--keep-memory", snapshot)
        folder = pathlib.Path(host.env["FERRY_STATE_DIR"]) / "snapshots" / "m"
        self.assertEqual(len([path for path in folder.iterdir() if path.is_dir()]), 1)

    @only_kvm
    def test_a_save_removes_what_its_own_merge_made_superfluous(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        saved = [host.save("m", "--full", "--no-merge") for _ in range(MERGE_FROM - 1)]
        self.delete(host, [one["snapshot"] for one in saved[1:]])
        kept = host.save("m", "--full", "--keep-layers")
        self.assertGreater(kept["layers_merged"], 0)
        self.assertEqual(kept["layers_removed"], 0)
        before = self.layers()
        self.assertGreater(host.json("vm-snapshot", "prune", "--dry-run")["files"], 0)
        self.assertEqual(self.layers(), before)

        more = [host.save("m", "--full", "--no-merge") for _ in range(MERGE_FROM)]
        self.delete(host, [one["snapshot"] for one in more] + [kept["snapshot"]])
        report = host.save("m", "--full")
        self.assertGreater(report["layers_merged"], 0)
        self.assertEqual(report["layers_removed"], report["layers_merged"])
        guest.check(1)
        last = host.json("vm-snapshot", "delete", report["snapshot"])
        self.assertGreater(last["prunable_files"], 0)
        self.assertEqual(self.prune(host)["files"], last["prunable_files"])
        self.assertEqual(self.prune(host)["files"], 0)
        self.assertLess(len(self.layers()), MERGE_FROM + 1)
        guest.check(1)
        host.save("m")
        self.end(host, guest)
        self.check_all(host)

    @only_kvm
    def test_what_clones_in_another_folder_stand_on_is_not_removed(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        saved = [host.save("m")["snapshot"] for _ in range(4)]
        clones = self.folder / "clones"
        clones.mkdir()
        first, second, third = (self.images / f"disk.00000{n}.qcow2" for n in (1, 2, 3))
        folder = ("--image-folder", str(self.images))
        host.run("vm-disk", "create", "-b", first, "-F", "qcow2", *folder, clones / "a.qcow2")
        for name, words in (("b", ("-b", second)), ("c", ("--name-only", "-b", third))):
            host.run("vm-disk", "create", clones / f"{name}.qcow2", DISK_BYTES)
            host.run("vm-disk", "layers", "rebase", *words, "-F", "qcow2", *folder,
                     clones / f"{name}.qcow2")
        # The machine goes back to before these layers, what it wrote since is given up, and no
        # snapshot is left.
        self.end(host, guest)
        (self.images / "disk.000004.qcow2").unlink()
        host.run("vm-restore", saved[0])
        guest = self.follow(host, "m", guest.jobs)
        guest.check(1)
        self.end(host, guest)
        self.delete(host, saved)

        for name, left in (("c", [1, 2, 3]), ("b", [1, 2]), ("a", [1])):
            self.prune(host, self.images / "disk.raw")
            self.assertEqual([layer for layer in self.layers() if layer < 4], left)
            host.run("vm-disk", "map", *folder, clones / f"{name}.qcow2")
            (clones / f"{name}.qcow2").unlink()
        self.prune(host, self.images / "disk.raw")
        self.assertEqual([layer for layer in self.layers() if layer < 4], [])

    @only_kvm
    def test_saves_into_two_stores_deletes_kills_and_prunes_lose_nothing(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        stores = [self.folder / "one", self.folder / "two"]
        random.seed(11)
        removed = 0
        for store in stores:
            host.save("m", "--full", "--store", str(store))
        for turn in range(24):
            store = ("--store", str(random.choice(stores)))
            host.save("m", "--full", *store)
            if turn % 6 == 2:
                saver = host.start("vm-save", "m", "--full", *store, stop_at=random.choice(
                    HOLD_STEPS))
                self.assertTrue(saver.wait_until_stopped(), saver.output())
                saver.kill()
                host.wait_for_state("m", "running")
            if turn % 3 == 0:
                ids = [one["id"] for one in host.json("vm-snapshot", "list", "m", *store)]
                self.delete(host, [f"m/{one}" for one in random.sample(ids, len(ids) // 2)], *store)
            if turn % 4 == 1:
                # vm-disk merges as vm-save does, so that there is something to remove.
                newest = self.images / f"disk.{self.layers()[-2]:06d}.qcow2"
                subprocess.run([host.program_path("vm-disk"), "layers", "merge", "-n", "3", newest],
                               check=False, capture_output=True)
            if turn % 5 == 4:
                pruner = host.start("vm-snapshot", "prune", "--yes", "--store", stores[0],
                                    stop_at="prune remove")
                if pruner.wait_until_stopped():
                    pruner.kill()
            if turn % 8 == 7:
                # A machine has the files of a merge that it was not told of open until it ends.
                self.end(host, guest)
                removed += self.prune(host, "--store", stores[0])["files"]
                snapshot = random.choice(host.json("vm-snapshot", "list", "m", *store))
                host.run("vm-restore", f"m/{snapshot['id']}", *store)
                guest = self.follow(host, "m", ("pattern", "disk"))
            self.prune(host, "--store", stores[0])
        self.assertGreater(removed, 0)
        guest.check(1)
        self.end(host, guest)
        for store in stores:
            self.check_all(host, "--store", str(store))

    @only_kvm
    def test_what_can_not_be_known_keeps_everything(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        other = self.folder / "other"
        host.save("m", "--full")
        host.save("m", "--full", "--store", str(other))
        for _ in range(4):
            host.save("m", "--full")
        newest = self.images / f"disk.{self.layers()[-2]:06d}.qcow2"
        host.run("vm-disk", "layers", "merge", "-n", "5", str(newest))
        self.end(host, guest)
        self.delete(host, [f"m/{one['id']}" for one in host.snapshots("m")])
        before = self.layers()
        image = str(self.images / "disk.raw")

        shutil.move(other, self.folder / "away")
        self.assertIn("store '", host.refuse("vm-snapshot", "prune", "--yes", image))
        other.mkdir() # as if it were not mounted
        self.assertIn("store '", host.refuse("vm-snapshot", "prune", "--yes", image))
        self.assertEqual(self.layers(), before)
        other.rmdir()
        shutil.move(self.folder / "away", other)
        self.assertIn("terminal", host.refuse("vm-snapshot", "prune", image))
        self.assertEqual(self.layers(), before)
        self.prune(host, image)
        self.assertLess(len(self.layers()), len(before))
        self.check_all(host, "--store", str(other))

        # Gone for good, with all that it kept.
        shutil.rmtree(other)
        host.refuse("vm-snapshot", "prune", "--yes", image)
        self.prune(host, image, "--forget", str(other))

    @only_kvm
    def test_overlays_of_killed_machines_are_collected(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        host.save("m")
        saver = host.start("vm-save", "m", stop_at="begin")
        self.assertTrue(saver.wait_until_stopped(), saver.output())
        os.kill(host.machine_processes()[0], signal.SIGKILL)
        saver.signal(signal.SIGCONT)
        saver.wait()
        host.wait_for_processes(0)
        guest.close()
        self.assertEqual(self.layers(), [1, 2])
        told = self.prune(host)
        self.assertEqual([file["kind"] for disk in told["disks"] for file in disk["files"]],
                         ["unused"])
        self.assertEqual(self.layers(), [1])
        self.check_all(host)

    @only_kvm
    def test_a_running_restore_is_waited_for(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        saved = [host.save("m", "--full") for _ in range(3)]
        self.end(host, guest)
        restorer = host.start("vm-restore", saved[1]["snapshot"], stop_at="make overlays")
        self.assertTrue(restorer.wait_until_stopped(), restorer.output())
        self.delete(host, [one["snapshot"] for one in saved])
        pruner = host.start("vm-snapshot", "prune", "--yes", str(self.images / "disk.raw"))
        restorer.signal(signal.SIGCONT)
        restorer.must_succeed()
        pruner.must_succeed()
        guest = self.follow(host, "m", ("pattern", "disk"))
        guest.check(1)
        self.end(host, guest)


if __name__ == "__main__":
    main()
