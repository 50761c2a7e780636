#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Chains of disks stay short however often a machine is saved and restored."""

import json
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
        reports = [host.save("m", "--no-merge") for _ in range(MERGE_FROM + 2)]
        self.assertEqual(len(chain(reports[-1]["disks"][0]["active"])), MERGE_FROM + 3)
        reports += [host.save("m") for _ in range(6)]
        merged = [report["layers_merged"] for report in reports]
        self.assertGreater(sum(merged), 0)
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
        host.wait_until_unlocked(active)
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
        for _ in range(MERGE_FROM - 10):
            host.save("m", "--no-merge")
        for _ in range(16):
            report = host.save("m")
            self.end(host, guest)
            host.run("vm-restore", "m")
            guest = self.follow(host, "m", guest.jobs)
        guest.check(1)
        active = pathlib.Path(report["disks"][0]["active"])
        self.assertLess(len(chain(active)), MERGE_FROM + 2)
        host.run("vm-snapshot", "verify", "m")


if __name__ == "__main__":
    main()
