#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which parts of a disk changed is known, whatever ends the machine."""

import os

from ferrytest.case import Case, main, needs, only_kvm

DISK_BYTES = 16 << 20


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
        host.wait_until_unlocked(self.changes)
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
        host.wait_until_unlocked(self.changes)
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
