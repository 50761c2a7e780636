#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Savers, restorers and machines are killed at each step: nothing is lost or left over."""

import os
import pathlib
import signal

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.program import wait_for

SAVE_STEPS = ("describe", "lend memory", "hold layers", "prepare disks", "begin", "copy memory",
              "pause", "save state", "copy the rest", "mark the cut", "freeze disks", "resume",
              "write", "publish", "keep tracking", "return memory")
RESTORE_STEPS = ("read the manifest", "check", "make overlays", "start the machine", "configure",
                 "give the memory", "load the state", "resume")
PUBLISHED = SAVE_STEPS.index("publish") + 1 # killed from here on, the snapshot is there


@needs("vm-save", "vm-restore", "vm-snapshot", "vm-ctl")
class Killed(Case):
    """kill -9 at a named step."""

    def test_a_saver_killed_at_any_step_leaves_the_guest_running(self):
        host = self.host()
        guest = self.boot(host, memory=32)
        host.save("m")
        expected = 1
        for index, step in enumerate(SAVE_STEPS):
            with self.subTest(step=step):
                saver = host.start("vm-save", "m", stop_at=step)
                self.assertTrue(saver.wait_until_stopped(), saver.output())
                saver.kill()
                host.wait_for_state("m", "running")
                expected += index >= PUBLISHED
                self.assertEqual(len(host.snapshots("m")), expected)
        guest.check(2)
        host.save("m")
        for snapshot in host.snapshots("m"):
            host.run("vm-snapshot", "verify", f"m/{snapshot['id']}")
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.run("vm-restore", "m")
        self.follow(host, "m", guest.jobs).check(2)

    def cancel(self, host, program, step, number):
        """Ctrl-C, or what a service manager sends, at a step."""
        self.assertTrue(program.wait_until_stopped(), program.output())
        program.signal(number)
        program.signal(signal.SIGCONT)
        self.assertIn("cancelled", program.must_fail(130), step)

    def test_a_cancelled_save_puts_away_what_it_began(self):
        host = self.host()
        guest = self.boot(host, memory=32)
        store = pathlib.Path(host.env["FERRY_STATE_DIR"]) / "snapshots"
        host.save("m")
        before = sorted(store.rglob("*"))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for step in SAVE_STEPS[:PUBLISHED]:
                with self.subTest(step=step, number=number):
                    self.cancel(host, host.start("vm-save", "m", stop_at=step), step, number)
                    host.wait_for_state("m", "running")
                    self.assertEqual(sorted(store.rglob("*")), before)
        guest.check(2)

    @only_kvm
    def test_a_cancelled_restore_leaves_no_machine_and_no_images(self):
        host = self.host()
        images = self.folder / "images"
        images.mkdir()
        disk = images / "disk.raw"
        disk.write_bytes(bytes(16 << 20))
        guest = self.boot(host, memory=32, disk=disk, jobs=("pattern", "disk"))
        host.save("m")
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        before = sorted(images.iterdir())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for step in RESTORE_STEPS:
                with self.subTest(step=step, number=number):
                    self.cancel(host, host.start("vm-restore", "m", stop_at=step), step, number)
                    host.wait_for_processes(0)
                    self.assertEqual(sorted(images.iterdir()), before)
        host.run("vm-restore", "m")
        self.follow(host, "m", guest.jobs).check(2)

    def test_a_machine_killed_while_it_is_saved_leaves_earlier_snapshots(self):
        for step in ("copy memory", "pause", "copy the rest", "resume", "write"):
            with self.subTest(step=step):
                host = self.host(step.replace(" ", "-"))
                guest = self.boot(host, memory=32)
                host.save("m")
                saver = host.start("vm-save", "m", stop_at=step)
                self.assertTrue(saver.wait_until_stopped(), saver.output())
                os.kill(host.machine_processes()[0], signal.SIGKILL)
                saver.signal(signal.SIGCONT)
                saver.wait()
                host.wait_for_processes(0)
                for snapshot in host.snapshots("m"):
                    host.run("vm-snapshot", "verify", f"m/{snapshot['id']}")
                host.run("vm-restore", "m")
                self.follow(host, "m", guest.jobs).check(2)

    def test_a_restorer_killed_at_any_step_leaves_nothing(self):
        host = self.host()
        guest = self.boot(host, memory=32)
        host.save("m")
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        for step in RESTORE_STEPS:
            with self.subTest(step=step):
                restorer = host.start("vm-restore", "m", stop_at=step)
                self.assertTrue(restorer.wait_until_stopped(), restorer.output())
                restorer.kill()
                host.wait_for_processes(0)
                self.assertEqual(host.state("m"), "gone")
        host.run("vm-restore", "m")
        self.follow(host, "m", guest.jobs).check(2)

    def test_a_machine_killed_while_it_is_restored_is_reported(self):
        host = self.host()
        self.boot(host, memory=32)
        host.save("m")
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.wait_for_processes(0)
        for step in ("configure", "load the state", "give the memory", "resume"):
            with self.subTest(step=step):
                restorer = host.start("vm-restore", "m", stop_at=step)
                self.assertTrue(restorer.wait_until_stopped(), restorer.output())
                pid = wait_for("a machine process", host.machine_processes)[0]
                host.run("kill", "-9", pid)
                restorer.signal(signal.SIGCONT)
                restorer.must_fail()
                host.wait_for_processes(0)
        host.run("vm-restore", "m")


if __name__ == "__main__":
    main()
