#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a guest may ask of a disk changes while it runs, and goes along wherever the machine goes."""

import signal

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.program import wait_for
from ferrytest.receiver import PATIENT, Receiver

SLOW = 20 # requests a second
QUEUES = 2


def requests(report):
    """How many the guest has done."""
    return report["writes"] + report["reads"] + report["flushes"]


def pace(guest, reports=8):
    """Requests and seconds, by the guest's own clock."""
    guest.check(2) # what was on its way is over
    first = guest.last("disk")
    guest.check(reports)
    last = guest.last("disk")
    return requests(last) - requests(first), (last["ms"] - first["ms"]) / 1000


@needs("vm-ctl", "vm-save", "vm-restore", "vm-migrate", "vm-receive", "vm-certs")
class DiskLimits(Case):
    """vm-ctl limit-disk, and --disk ...,iops=,bps=."""

    def boot_with_disk(self, host, **settings):
        """A guest that writes a disk of 8 MiB."""
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(8 << 20))
        return self.boot(host, disk=disk, jobs=("pattern", "disk"), **settings)

    @staticmethod
    def disk(host):
        """The disk as the machine describes it."""
        return host.json("vm-ctl", "status", "m")["config"]["disks"][0]

    def limit(self, host, limits):
        """Changes the limits of the one disk."""
        host.run("vm-ctl", "limit-disk", "m", self.disk(host)["id"], limits)

    def expect(self, host, iops, bps):
        """These limits are shown."""
        disk = self.disk(host)
        self.assertEqual((disk["requests_per_second"], disk["bytes_per_second"]), (iops, bps))

    def expect_slow(self, guest):
        """A tenth of a second may be made up for; one request of each queue may have begun."""
        count, seconds = pace(guest)
        self.assertLessEqual(count, SLOW * (seconds + 0.1) + 1 + QUEUES)

    def expect_fast(self, guest):
        """Not as if there was the limit."""
        count, seconds = pace(guest)
        self.assertGreater(count, 3 * SLOW * seconds)

    @only_kvm
    def test_a_guest_is_slowed_down_and_let_go(self):
        host = self.host()
        guest = self.boot_with_disk(host, disk_options=f",queues={QUEUES},iops={SLOW}")
        self.expect(host, SLOW, 0)
        self.expect_slow(guest)
        self.limit(host, "iops=0")
        self.expect_fast(guest)
        self.limit(host, f"iops={SLOW}")
        self.expect_slow(guest)

    @only_kvm
    def test_a_guest_that_would_wait_for_hours_goes_on_at_once(self):
        host = self.host()
        guest = self.boot_with_disk(host, disk_options=f",queues={QUEUES}")
        for lifted in ("bps=0", "bps=1000000000"):
            self.limit(host, "bps=1")
            guest.check(1)
            guest.check(1)
            wait_for("the disk stands still", lambda: requests(guest.reports["disk"][-2]) ==
                     requests(guest.reports["disk"][-1]))
            host.run("vm-ctl", "pause", "m")
            self.limit(host, "iops=0") # nothing that matters, of a machine that stands still
            host.run("vm-ctl", "resume", "m")
            self.limit(host, lifted)
            self.expect_fast(guest)

    def test_the_latest_limits_are_saved_and_moved(self):
        here, there = self.hosts()
        self.boot_with_disk(here)
        self.limit(here, "iops=500,bps=1000000")
        self.limit(here, "iops=700")
        self.expect(here, 700, 1000000)
        here.save("m")
        self.limit(here, "iops=0,bps=0")
        self.expect(here, 0, 0)
        here.run("vm-ctl", "quit", "m", "--wait", "10")
        here.run("vm-restore", "m")
        self.expect(here, 700, 1000000)
        self.limit(here, "bps=0")
        here.run("vm-migrate", "m", Receiver(there).address(), *PATIENT)
        self.expect(there, 700, 0)

    @only_kvm
    def test_limits_do_not_change_while_the_machine_moves(self):
        here, there = self.hosts()
        guest = self.boot_with_disk(here)
        move = here.start("vm-migrate", "m", Receiver(there).address(), *PATIENT, stop_at="precopy")
        self.assertTrue(move.wait_until_stopped(), move.output())
        refused = here.start("vm-ctl", "limit-disk", "m", "vda", "iops=1")
        self.assertIn("is being saved or moved", refused.must_fail(4))
        self.expect(here, 0, 0)
        move.signal(signal.SIGKILL)
        move.wait()
        wait_for("the mover is forgotten", lambda: here.start(
            "vm-ctl", "limit-disk", "m", "vda", "iops=5000").wait() == 0)
        self.expect(here, 5000, 0)
        guest.check(2)


if __name__ == "__main__":
    main()
