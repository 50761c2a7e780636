#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A machine whose disks are slow answers everybody else meanwhile, and whoever gives up leaves
nothing behind."""

import subprocess

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.hold import Hold

DISK_BYTES = 4 << 20


@needs("vm-ctl", "vm-save")
class SlowDisks(Case):
    """The machine's worker is held while it does something with the disks."""

    def boot_held(self, step):
        """A guest with a disk, in a machine that is held at a step."""
        host = self.host()
        hold = Hold(self.folder, step)
        self.addCleanup(hold.close)
        host.env.update(hold.env)
        self.disk = self.folder / "disk.raw"
        subprocess.run(["truncate", "-s", str(DISK_BYTES), self.disk], check=True)
        guest = self.boot(host, disk=self.disk, jobs=("pattern", "disk"))
        return host, hold, guest

    def overlays(self):
        """Files of layers beside the disk."""
        return sorted(path.name for path in self.folder.glob("disk.0*.qcow2"))

    @only_kvm
    def test_others_are_answered_while_disks_are_prepared(self):
        host, hold, guest = self.boot_held("vm-run prepare disks")
        saver = host.start("vm-save", "m", "--pause-max", "20000")
        with hold.held():
            self.assertEqual(host.state("m"), "running")
            guest.check(2)
            refused = host.refuse("vm-save", "m")
            self.assertIn("another program is saving the machine", refused)
        saver.must_succeed()
        self.assertEqual(self.overlays(), ["disk.000001.qcow2"])
        guest.check(2)

    @only_kvm
    def test_what_a_killed_saver_had_asked_for_is_removed(self):
        host, hold, guest = self.boot_held("vm-run prepare disks")
        saver = host.start("vm-save", "m")
        with hold.held():
            saver.kill()
            # The next is not refused: what it wants replaces what nobody waits for.
            saver = host.start("vm-save", "m", "--pause-max", "20000")
            guest.check(2)
        with hold.held():
            saver.kill()
            guest.check(2)
        self.assertEqual(host.state("m"), "running")
        saver = host.start("vm-save", "m", "--pause-max", "20000")
        with hold.held():
            pass
        saver.must_succeed()
        self.assertEqual(len(host.snapshots("m")), 1)
        self.assertEqual(self.overlays(), ["disk.000001.qcow2"])
        guest.check(2)

    @only_kvm
    def test_a_machine_that_is_told_to_quit_waits_and_leaves_no_overlay(self):
        host, hold, _ = self.boot_held("vm-run prepare disks")
        saver = host.start("vm-save", "m")
        with hold.held():
            host.run("vm-ctl", "quit", "m")
            self.assertEqual(len(host.machine_processes()), 1)
        host.wait_for_processes(0)
        self.assertIn("m", saver.must_fail())
        self.assertEqual(self.overlays(), [])

    @only_kvm
    def test_a_pause_waits_for_the_disks_while_the_guest_runs(self):
        host, hold, guest = self.boot_held("vm-run flush disks")
        pauser = host.start("vm-ctl", "pause", "m")
        with hold.held():
            guest.check(2)
            self.assertEqual(host.state("m"), "running")
            pauser.kill()
        guest.check(2)
        self.assertEqual(host.state("m"), "running")

        pauser = host.start("vm-ctl", "pause", "m")
        with hold.held():
            guest.check(2)
        pauser.must_succeed()
        self.assertEqual(host.state("m"), "paused")
        host.run("vm-ctl", "resume", "m")
        guest.check(2)


if __name__ == "__main__":
    main()
