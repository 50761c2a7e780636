#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disks of running machines become larger, and what was saved before keeps its size."""

import json
import subprocess

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.hold import Hold
from ferrytest.program import wait_for
from ferrytest.receiver import PATIENT, Receiver

SMALL, LARGE = 2 << 20, 4 << 20
GUEST_BLOCK = 4096
MERGE_FROM = 64  # layers; storage/layer_merge_policy.h


@needs("vm-ctl", "vm-disk", "vm-save", "vm-restore", "vm-migrate", "vm-receive")
class DiskGrowth(Case):
    """The guest uses all of its disk, as large as that is at the time."""

    def boot_small(self, host, image_format, *, options="", env=None):
        """A guest with a small disk."""
        self.disk = self.folder / f"disk.{image_format}"
        host.run("vm-disk", "create", "-f", image_format, self.disk, SMALL)
        host.env.update(env or {})
        return self.boot(host, jobs=("pattern", "disk"), arguments=(
            "--disk", f"id=vda,path={self.disk},format={image_format}{options}"))

    def expect_size(self, guest, size):
        """The guest knows that its disk has this size, and uses it."""
        guest.check(1)
        wait_for(f"the guest sees {size} bytes",
                 lambda: guest.last("disk")["blocks"] * GUEST_BLOCK == size)
        guest.check(3)
        self.assertEqual(guest.last("disk")["blocks"] * GUEST_BLOCK, size)

    def grow(self, host, size):
        """Says what the disk's size is then."""
        return host.json("vm-ctl", "resize-disk", "m", "vda", size)["virtual_bytes"]

    def size_of_image(self, path):
        """As others see it."""
        text = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True,
                              capture_output=True, text=True).stdout
        return json.loads(text)["virtual-size"]

    @only_kvm
    def test_a_guest_uses_what_was_added_and_snapshots_keep_their_size(self):
        for image_format in ("raw", "qcow2"):
            with self.subTest(format=image_format):
                host = self.host(image_format)
                guest = self.boot_small(host, image_format)
                guest.check(1)
                small = host.save("m")["snapshot"]
                self.assertEqual(self.grow(host, "+1M"), SMALL + (1 << 20))
                self.assertEqual(self.grow(host, f"{LARGE}"), LARGE)
                self.expect_size(guest, LARGE)
                report = host.save("m")
                guest.check(2)
                self.assertEqual(self.size_of_image(report["disks"][0]["active"]), LARGE)
                self.assertEqual(self.size_of_image(self.disk), SMALL)

                for snapshot, size in ((small, SMALL), (report["snapshot"], LARGE)):
                    host.run("vm-ctl", "quit", "m", "--wait", "10")
                    guest.close()
                    host.run("vm-restore", snapshot)
                    guest = self.follow(host, "m", guest.jobs)
                    self.expect_size(guest, size)
                    host.run("vm-snapshot", "verify", snapshot)
                # One that was restored knows a size already, and grows all the same.
                self.assertEqual(self.grow(host, "+4k"), LARGE + 4096)
                guest.check(2)
                host.run("vm-ctl", "quit", "m", "--wait", "10")

    @only_kvm
    def test_layers_of_different_sizes_are_merged(self):
        host = self.host()
        guest = self.boot_small(host, "qcow2")
        reports = [host.save("m", "--no-merge") for _ in range(MERGE_FROM // 2)]
        self.grow(host, LARGE)
        self.expect_size(guest, LARGE)
        reports += [host.save("m") for _ in range(MERGE_FROM)]
        self.assertGreater(sum(report["layers_merged"] for report in reports), MERGE_FROM // 2)
        guest.check(3)
        for report, size in ((reports[5], SMALL), (reports[-5], LARGE)):
            host.run("vm-ctl", "quit", "m", "--wait", "10")
            guest.close()
            host.run("vm-restore", report["snapshot"])
            guest = self.follow(host, "m", guest.jobs)
            self.expect_size(guest, size)

    @only_kvm
    def test_a_grown_disk_goes_along_in_a_move(self):
        source, target = self.hosts()
        guest = self.boot_small(source, "qcow2")
        guest.check(1)
        self.grow(source, LARGE)
        source.run("vm-migrate", "m", Receiver(target).address(), *PATIENT)
        guest.close()
        guest = self.follow(target, "m", guest.jobs)
        self.expect_size(guest, LARGE)

    @only_kvm
    def test_what_can_not_be_done_is_refused_and_the_guest_runs_on(self):
        host = self.host()
        guest = self.boot_small(host, "raw")
        guest.check(1)
        for words, text in ((("vda", "1M"), "does not become smaller"),
                            (("vda", "+1"), "whole sectors"),
                            (("vda", "+70000T"), "at most"),
                            (("vdb", "+1M"), "has no disk 'vdb'"),
                            (("vda", "much"), "much")):
            self.assertIn(text, host.refuse("vm-ctl", "resize-disk", "m", *words))
            self.assertEqual(host.state("m"), "running")
        self.assertEqual(self.grow(host, "+0"), SMALL)
        host.run("vm-ctl", "pause", "m")
        self.assertIn("paused", host.refuse("vm-ctl", "resize-disk", "m", "vda", "+1M"))
        host.run("vm-ctl", "resume", "m")
        self.expect_size(guest, SMALL)

    @only_kvm
    def test_a_disk_does_not_grow_while_it_is_saved(self):
        host = self.host()
        hold = Hold(self.folder, "vm-run prepare disks")
        self.addCleanup(hold.close)
        guest = self.boot_small(host, "qcow2", env=hold.env)
        saver = host.start("vm-save", "m", "--pause-max", "20000", stop_at="begin")
        with hold.held():
            pass
        self.assertTrue(saver.wait_until_stopped(), saver.output())
        self.assertIn("is being saved", host.refuse("vm-ctl", "resize-disk", "m", "vda", LARGE))
        saver.kill()
        wait_for("the overlay is gone", lambda: not list(self.folder.glob("disk.0*")))
        self.assertEqual(self.grow(host, LARGE), LARGE)
        self.expect_size(guest, LARGE)

    @only_kvm
    def test_all_of_a_disk_that_grew_counts_as_changed(self):
        host = self.host()
        guest = self.boot_small(host, "raw", options=",track=daily")
        changes = self.folder / "disk.daily.changes"
        host.run("vm-disk", "changes", changes, "--begin", "--to-copy", "--machine", "m", "--disk",
                 "vda", "--tracker", "daily")
        host.run("vm-disk", "changes", changes, "--done")
        self.grow(host, LARGE)
        self.expect_size(guest, LARGE)
        ranges = host.json("vm-disk", "changes", changes)["ranges"]
        self.assertEqual(sum(part["length"] for part in ranges), LARGE)


if __name__ == "__main__":
    main()
