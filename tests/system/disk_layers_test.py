#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Chains of disks stay short however often a machine is saved and restored; changes are known."""

import json
import os
import pathlib
import subprocess

from ferrytest.case import Case, main, needs, only_kvm

DISK_BYTES = 16 << 20
MERGE_FROM = 64  # layers; storage/layer_merge_policy.h


def chain(path):
    """The files of a disk that a machine may be using, the newest first."""
    text = subprocess.run(["qemu-img", "info", "-U", "--backing-chain", "--output=json", path],
                          check=True, capture_output=True, text=True).stdout
    return [image["filename"] for image in json.loads(text)]


@needs("vm-save", "vm-restore", "vm-snapshot", "vm-ctl")
class DiskLayers(Case):
    """A machine that is saved more often than a chain may have layers."""

    def boot_with_disk(self, host):
        """The payload guest stamps the disk and remembers the stamps in memory."""
        path = self.folder / "disk.raw"
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", path, str(DISK_BYTES)], check=True)
        return self.boot(host, disk=path, jobs=("pattern", "disk"))

    def end(self, host, guest):
        """The machine is gone."""
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.wait_for_state("m", "gone")
        guest.close()

    @only_kvm
    def test_a_running_machine_goes_on_over_merges(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        reports = [host.json("vm-save", "m", "--no-merge") for _ in range(MERGE_FROM + 2)]
        self.assertEqual(len(chain(reports[-1]["disks"][0]["active"])), MERGE_FROM + 3)
        reports += [host.json("vm-save", "m") for _ in range(50)]
        merged = [report["layers_merged"] for report in reports]
        self.assertGreaterEqual(sum(count > 0 for count in merged), 2)
        active = reports[-1]["disks"][0]["active"]
        self.assertLess(len(chain(active)), MERGE_FROM + 2)
        self.assertEqual(len(chain(active)), len(reports) + 1 - sum(merged))
        guest.check(3)
        # Locks: neither the disk nor a layer of it can be written by others.
        for path in (active, chain(active)[1], chain(active)[-1]):
            refused = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 512", path],
                                     capture_output=True, text=True, check=False)
            self.assertIn("lock", refused.stderr + refused.stdout)
        self.end(host, guest)
        subprocess.run(["qemu-img", "check", "-q", active], check=True)

        # Whether its layer was merged away, was merged into, or neither: every snapshot is whole.
        snapshots = [report["snapshot"] for report in reports]
        for snapshot in snapshots[::9] + snapshots[-3:]:
            host.run("vm-snapshot", "verify", snapshot)
        for snapshot in (snapshots[3], snapshots[47], snapshots[-1]):
            host.run("vm-restore", snapshot)
            guest = self.follow(host, "m", guest.jobs)
            guest.check(1)
            self.end(host, guest)

    @only_kvm
    def test_a_machine_is_restored_and_saved_beyond_the_longest_chain(self):
        host = self.host()
        guest = self.boot_with_disk(host)
        rounds = MERGE_FROM + 4
        for _ in range(rounds):
            report = host.json("vm-save", "m")
            self.end(host, guest)
            host.run("vm-restore", "m")
            guest = self.follow(host, "m", guest.jobs)
        guest.check(1)
        active = pathlib.Path(report["disks"][0]["active"])
        self.assertLess(len(chain(active)), MERGE_FROM + 2)
        host.run("vm-snapshot", "verify", "m")


@needs("vm-disk", "vm-ctl")
class DiskChanges(Case):
    """An incremental copy of a disk in use."""

    def boot_tracked(self, host):
        """A machine that notes which parts of its disk change."""
        self.disk = self.folder / "disk.raw"
        self.changes = self.folder / "disk.daily.changes"
        self.copy = self.folder / "copy.raw"
        self.copy.write_bytes(bytes(DISK_BYTES))
        if not self.disk.exists():
            self.disk.write_bytes(bytes(DISK_BYTES))
        return self.boot(host, jobs=("pattern", "disk"), arguments=(
            "--disk", f"id=vda,path={self.disk},format=raw,track=daily+other"))

    def copy_changes(self, host, *begin):
        """Copies what changed since the last time; returns how many bytes that were."""
        report = host.json("vm-disk", "changes", self.changes, "--begin", *begin, "--to-copy")
        with open(self.disk, "rb") as source, open(self.copy, "r+b") as target:
            for part in report["ranges"]:
                data = os.pread(source.fileno(), part["length"], part["start"])
                os.pwrite(target.fileno(), data, part["start"])
            os.fsync(target.fileno())
        host.run("vm-disk", "changes", self.changes, "--done")
        return sum(part["length"] for part in report["ranges"])

    @only_kvm
    def test_copies_are_complete_after_a_kill(self):
        host = self.host()
        guest = self.boot_tracked(host)
        by_machine = ("--machine", "m", "--disk", "vda", "--tracker", "daily")
        self.assertEqual(self.copy_changes(host, *by_machine), DISK_BYTES)
        self.assertIn("in use", host.refuse("vm-disk", "changes", self.changes, "--begin"))
        for _ in range(3):
            guest.check(1)
            self.assertGreater(self.copy_changes(host, *by_machine), 0)
        guest.check(1)
        host.run("kill", "-9", host.machines()["m"]["pid"])
        host.wait_for_processes(0)
        guest.close()
        changed = self.copy_changes(host)
        self.assertLess(changed, DISK_BYTES)
        self.assertEqual(self.disk.read_bytes(), self.copy.read_bytes())

        # The other tracker has waited from the first byte on; without changes there are none.
        self.changes = self.folder / "disk.other.changes"
        self.assertEqual(self.copy_changes(host), DISK_BYTES)
        self.assertEqual(self.copy_changes(host), 0)

    @only_kvm
    def test_an_end_in_order_keeps_what_is_known(self):
        host = self.host()
        guest = self.boot_tracked(host)
        self.copy_changes(host, "--machine", "m", "--disk", "vda", "--tracker", "daily")
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.wait_for_processes(0)
        guest.close()
        self.copy_changes(host)
        self.assertEqual(self.disk.read_bytes(), self.copy.read_bytes())
        # Somebody else writes: everything has changed.
        with open(self.disk, "r+b") as disk:
            disk.write(b"foreign")
        guest = self.boot_tracked(host)
        report = host.json("vm-disk", "changes", self.changes)
        self.assertEqual(sum(part["length"] for part in report["ranges"]), DISK_BYTES)
        guest.check(1)

    def test_names_of_trackers_are_checked(self):
        host = self.host()
        for track, text in (("a/b", "letters"), ("a+a", "two trackers"), ("a+b+c+d+e", "the most")):
            self.assertIn(text, host.refuse(
                "vm-run", "--name", "m", "--kernel", "k", "--disk",
                f"id=vda,path=/nowhere,format=raw,track={track}"))


if __name__ == "__main__":
    main()
