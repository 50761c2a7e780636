#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host without room for a disk: the guest waits, loses nothing, and goes on; there or elsewhere."""

import os
import shutil
import subprocess
import sys
import unittest

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.program import wait_for
from ferrytest.receiver import PATIENT, Receiver

NARROW, WIDE = 2 << 20, 64 << 20
DISK_BYTES = 4 << 20
IS_ALONE = "FERRY_TEST_OWN_MOUNTS"


def leave_the_mounts_of_others():
    """What is mounted here is seen by this test and its programs alone, and is gone with them."""
    alone = ["unshare", "-m"]
    probe = [*alone, "mount", "-t", "tmpfs", "none", "/mnt"]
    if IS_ALONE not in os.environ and os.geteuid() == 0 and shutil.which("unshare") and \
            subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode == 0:
        os.execvpe("unshare", [*alone, sys.executable, *sys.argv], os.environ | {IS_ALONE: "1"})


@needs("vm-ctl", "vm-disk", "vm-save", "vm-restore", "vm-migrate", "vm-receive")
@unittest.skipIf(IS_ALONE not in os.environ,
                 "no private file system here: needs root and unshare")
class FullDisk(Case):
    """The disk lies on a tmpfs that is smaller, for a while."""

    def setUp(self):
        super().setUp()
        self.room = self.folder / "room"
        self.room.mkdir()
        self.mount(f"size={NARROW},mode=0700")
        self.addCleanup(subprocess.run, ["umount", "-l", self.room], check=True)

    def mount(self, options):
        """The room, or with other options what it is from now on."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.room], check=True)

    def boot_without_room(self, host, image_format="raw", disk_options=""):
        """A guest that writes a disk, when it waits for the first time."""
        disk = self.room / f"disk.{image_format}"
        host.run("vm-disk", "create", "-f", image_format, disk, DISK_BYTES)
        guest = self.boot(host, disk=disk, jobs=("pattern", "disk"), disk_options=disk_options)
        wait_for("the disk is full", lambda: self.problems(host), 60)
        return guest

    @staticmethod
    def problems(host):
        """What the machine says it waits for."""
        return host.json("vm-ctl", "status", "m")["problems"]

    def make_room(self, host, guest):
        """The guest goes on and has missed nothing."""
        self.mount(f"remount,size={WIDE}")
        wait_for("the disk goes on", lambda: not self.problems(host))
        guest.check(3)
        self.assertEqual(guest.last("disk")["failed"], 0)
        self.assertEqual(guest.last("disk")["bad"], 0)

    @only_kvm
    def test_a_guest_without_room_waits_and_loses_nothing(self):
        host = self.host()
        guest = self.boot_without_room(host)
        self.assertIn("disk 'vda' has no room", self.problems(host)[0])
        self.assertIn("No space left", self.problems(host)[0])
        self.assertEqual(host.state("m"), "running")
        guest.check(1)
        self.assertEqual(guest.last("disk")["failed"], 0)

        # What waits survives a pause, and asking once more without room changes nothing.
        host.run("vm-ctl", "pause", "m")
        host.run("vm-ctl", "resume", "m")
        wait_for("the disk is full again", lambda: self.problems(host), 20)
        host.run("vm-ctl", "resume", "m")
        self.assertEqual(guest.last("disk")["failed"], 0)
        self.make_room(host, guest)

    def move_without_room(self, image_format, disk_options=""):
        """From here to there, where the same disk has no room either, until it has."""
        here, there = self.hosts()
        receiver = Receiver(there)
        guest = self.boot_without_room(here, image_format, disk_options)
        here.run("vm-migrate", "m", receiver.address(), *PATIENT)
        guest.close()
        here.wait_for_state("m", "gone")
        guest = self.follow(there, "m", guest.jobs)
        wait_for("the disk is full there, too", lambda: self.problems(there), 20)
        guest.check(1)
        self.make_room(there, guest)
        return guest

    @only_kvm
    def test_a_move_takes_along_what_waits(self):
        self.move_without_room("raw")

    @only_kvm
    def test_a_move_takes_along_what_waits_for_a_cluster(self):
        self.move_without_room("qcow2")

    @only_kvm
    def test_requests_of_several_queues_wait_and_go_on(self):
        host = self.host()
        guest = self.boot_without_room(host, "qcow2", ",queues=4")
        guest.check(1)
        self.assertEqual(len(self.problems(host)), 1)
        host.run("vm-ctl", "resume", "m")
        guest.check(1)
        wait_for("the disk is full again", lambda: len(self.problems(host)) == 1, 20)
        self.make_room(host, guest)
        self.assertEqual(guest.last("disk")["queues"], 4)

    @only_kvm
    def test_a_move_takes_along_what_waits_in_several_queues(self):
        guest = self.move_without_room("raw", ",queues=4")
        self.assertEqual(guest.last("disk")["queues"], 4)

    @only_kvm
    def test_a_save_without_room_fails_and_the_guest_goes_on(self):
        host = self.host()
        guest = self.boot_without_room(host, "qcow2")
        self.assertIn("No space left", host.refuse("vm-save", "m"))
        self.assertEqual(host.state("m"), "running")
        guest.check(1)
        self.make_room(host, guest)
        host.save("m")
        host.run("kill", "-9", host.machines()["m"]["pid"])
        host.wait_for_state("m", "gone")
        guest.close()
        host.run("vm-restore", "m")
        self.follow(host, "m", guest.jobs).check(3)


if __name__ == "__main__":
    leave_the_mounts_of_others()
    main()
