#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host without room for a disk: the guest waits, loses nothing, and goes on."""

import os
import shutil
import subprocess

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.program import wait_for

ROOM_BYTES = 6 << 20
FILLER_BYTES = 4 << 20
DISK_BYTES = 4 << 20


@needs("vm-ctl")
class FullDisk(Case):
    """The disk is a sparse file on a tmpfs that something else has filled."""

    def small_room(self):
        """The folder, and a vm-run that sees the tmpfs there."""
        room = self.folder / "room"
        room.mkdir()
        script = self.folder / "vm-run-in-room"
        script.write_text(
            "#!/bin/sh\n"
            "set -e\n"
            f"mount -t tmpfs -o size={ROOM_BYTES},mode=0700 none {room}\n"
            f"head -c {FILLER_BYTES} /dev/zero >{room}/filler\n"
            f"truncate -s {DISK_BYTES} {room}/disk.raw\n"
            'exec "$FERRY_VM_RUN" "$@"\n')
        script.chmod(0o700)
        probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", room]
        if shutil.which("unshare") is None or os.geteuid() != 0 or subprocess.run(
                probe, check=False, stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("no private file system here: needs root and unshare")
        return room, script

    @only_kvm
    def test_a_guest_without_room_waits_and_loses_nothing(self):
        room, script = self.small_room()
        host = self.host()
        guest = self.boot(host, disk=room / "disk.raw", jobs=("pattern", "disk"),
                          program=("unshare", "-m", script))

        def problems():
            return host.json("vm-ctl", "status", "m")["problems"]

        wait_for("the disk is full", problems, 60)
        self.assertIn("disk 'vda' has no room", problems()[0])
        self.assertIn("No space left", problems()[0])
        self.assertEqual(host.state("m"), "running")
        guest.check(1)
        self.assertEqual(guest.last("disk")["failed"], 0)

        # What waits survives a pause, and asking once more without room changes nothing.
        host.run("vm-ctl", "pause", "m")
        host.run("vm-ctl", "resume", "m")
        wait_for("the disk is full again", problems, 20)
        host.run("vm-ctl", "resume", "m")
        self.assertEqual(guest.last("disk")["failed"], 0)

        pid = host.machines()["m"]["pid"]
        os.unlink(f"/proc/{pid}/root{room}/filler")
        wait_for("the disk goes on", lambda: not problems())
        guest.check(3)
        self.assertEqual(guest.last("disk")["failed"], 0)
        self.assertEqual(guest.last("disk")["bad"], 0)


if __name__ == "__main__":
    main()
