#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Both sides of a move are killed at each step: one guest runs, or soon runs again; never two.

A machine that was handed over and has lost its worker asks the target itself what became of it.
"""

import os
import signal

from ferrytest.case import MACHINE, Case, main, needs, only_kvm
from ferrytest.receiver import PATIENT, Receiver

# Killed before it steps into these, the source has not given the guest away.
SOURCE_KEEPS = ("connect", "check", "channels", "precopy", "record", "stop", "state", "hand over")
TARGET_LOSES = ("accept", "load", "ready")


@needs("vm-migrate", "vm-receive", "vm-certs", "vm-ctl")
class KilledMover(Case):
    """kill -9 at a named step."""

    def setUp(self):
        super().setUp()
        self.source, self.target = self.hosts()

    def start(self, source_stop=None, target_stop=None, **settings):
        """A machine on its way, with one of the two sides to stop."""
        self.receiver = Receiver(self.target, stop_at=target_stop)
        self.guest = self.boot(self.source, memory=32, **settings)
        self.move_again(source_stop)

    def move_again(self, source_stop):
        """Another move of the same machine."""
        self.move = self.source.start("vm-migrate", "m", self.receiver.address(), *PATIENT,
                                      stop_at=source_stop)

    def kill_source(self, step, **settings):
        """Kills vm-migrate at this step."""
        self.start(source_stop=step, **settings)
        self.assertTrue(self.move.wait_until_stopped(), self.move.output())
        self.move.kill()

    def settle(self):
        """vm-run asks by itself; for the pretended machine somebody must."""
        if MACHINE == "fake":
            self.source.wait_for_state("m", "handed-over")
            self.source.run("vm-migrate", "--settle", "m")

    def expect_at_source(self):
        """The guest runs here and only here."""
        self.source.wait_for_state("m", "running", seconds=60)
        self.target.wait_for_processes(0, seconds=90)
        self.guest.check(2)

    def expect_at_target(self):
        """The guest runs there and only there."""
        self.source.wait_for_processes(0, seconds=60)
        self.assertEqual(self.target.state("m"), "running")
        self.follow(self.target, "m", self.guest.jobs).check(2)

    def test_a_source_killed_before_it_gave_the_guest_away(self):
        self.start(source_stop=SOURCE_KEEPS[0])
        for step in SOURCE_KEEPS:
            with self.subTest(step=step):
                if step != SOURCE_KEEPS[0]:
                    self.move_again(step)
                self.assertTrue(self.move.wait_until_stopped(), self.move.output())
                self.move.kill()
                self.expect_at_source()

    def test_a_source_killed_before_commit_takes_the_guest_back(self):
        self.kill_source("commit")
        self.settle()
        self.expect_at_source()

    def test_a_source_killed_after_commit_learns_that_the_guest_runs_there(self):
        self.kill_source("commit sent")
        self.settle()
        self.expect_at_target()

    @only_kvm
    def test_a_disk_with_several_queues_stays_whole(self):
        for step, expect in (("commit", self.expect_at_source),
                             ("commit sent", self.expect_at_target)):
            with self.subTest(step=step):
                disk = self.folder / f"{step.replace(' ', '-')}.raw"
                disk.write_bytes(bytes(8 << 20))
                self.kill_source(step, jobs=("pattern", "disk"), second_jobs=("disk1",), disk=disk,
                                 disk_options=",queues=4")
                expect()
                self.receiver.program.kill()
                self.guest.close()
                if step == "commit":
                    self.source.run("vm-ctl", "quit", "m", "--wait", "10")

    def kill_target(self, step):
        """Kills the process that receives, at this step."""
        self.start(target_stop=step)
        os.kill(self.receiver.wait_until_stopped(), signal.SIGKILL)

    def test_a_target_killed_before_commit(self):
        for step in TARGET_LOSES:
            with self.subTest(step=step):
                self.kill_target(step)
                self.move.must_fail()
                self.expect_at_source()
                self.receiver.program.kill()
                self.guest.close()
                self.source.run("vm-ctl", "quit", "m", "--wait", "10")

    def test_a_target_killed_after_commit_before_the_guest_runs(self):
        self.kill_target("committed")
        self.move.must_fail()
        self.expect_at_source()

    def test_a_target_killed_when_the_guest_runs(self):
        self.kill_target("resumed")
        self.move.wait()
        self.expect_at_target()

    def test_a_machine_killed_while_it_moves_is_reported(self):
        self.start(source_stop="precopy")
        self.assertTrue(self.move.wait_until_stopped(), self.move.output())
        os.kill(self.source.machine_processes()[0], signal.SIGKILL)
        self.move.signal(signal.SIGCONT)
        self.move.must_fail()
        self.source.wait_for_processes(0)
        self.target.wait_for_processes(0, seconds=30)

    def test_an_arriving_machine_that_is_killed_is_reported(self):
        self.start(source_stop="stop")
        self.assertTrue(self.move.wait_until_stopped(), self.move.output())
        os.kill(self.target.machine_processes()[0], signal.SIGKILL)
        self.move.signal(signal.SIGCONT)
        self.move.must_fail()
        self.expect_at_source()


if __name__ == "__main__":
    main()
