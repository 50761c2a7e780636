#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Machines are saved while they work, killed, and brought back exactly as they were."""

import os
import pathlib
import shutil
import signal

from ferrytest.case import MACHINE, Case, main, needs, only_kvm
from ferrytest.host import ROOT
from ferrytest.program import wait_for

ROUNDS = 6


def kill_machine(host, name):
    """As a crash of the machine's process would end it."""
    pid = host.machines()[name]["pid"]
    host.run("kill", "-9", pid)
    host.wait_for_state(name, "gone")


def rings(pid):
    """How many io_urings a process has."""
    return sum(os.readlink(fd).endswith("[io_uring]")
               for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir())


def threads(pid, role):
    """How many threads of a role a process has."""
    return sum((task / "comm").read_text().startswith(role + " ")
               for task in pathlib.Path(f"/proc/{pid}/task").iterdir())


@needs("vm-save", "vm-restore", "vm-snapshot", "vm-ctl", "vm-disk")
class SaveRestore(Case):
    """One machine, saved and restored in many rounds across processes."""

    def rounds(self, count, host=None, **settings):
        """Saves, kills and restores `count` times; each snapshot is the child of the last."""
        host = host or self.host()
        guest = self.boot(host, **settings)
        jobs = guest.jobs
        for _ in range(count):
            guest.check(1)
            host.save("m")
            guest.check(1)
            kill_machine(host, "m")
            guest.close()
            host.run("vm-restore", "m")
            guest = self.follow(host, "m", jobs)
        guest.check(2)
        for snapshot in host.snapshots("m"):
            host.run("vm-snapshot", "verify", f"m/{snapshot['id']}")
        return guest

    def test_memory_is_exact_over_many_rounds(self):
        host = self.host()
        self.rounds(ROUNDS, host)
        self.assertEqual(len(host.snapshots("m")), ROUNDS)

    @only_kvm
    def test_two_vcpus_with_timer_floating_point_and_clock(self):
        self.rounds(ROUNDS, jobs=("pattern", "timer"), second_jobs=("fpu", "clock"))

    @only_kvm
    def test_memory_in_two_slots(self):
        self.rounds(2, memory=96, arguments=("--memory-below-4g", 32), options="mb=20")

    @only_kvm
    def test_memory_and_a_raw_disk_are_of_one_instant(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(8 << 20))
        self.rounds(4, jobs=("pattern", "disk"), disk=disk)

    @only_kvm
    def test_memory_and_a_qcow2_disk_are_of_one_instant(self):
        if shutil.which("qemu-img") is None:
            self.skipTest("qemu-img is not installed")
        disk = self.folder / "disk.qcow2"
        host = self.host("images")
        host.run("qemu-img", "create", "-f", "qcow2", disk, "8M")
        machines = self.host()
        self.rounds(4, machines, jobs=("pattern",), second_jobs=("disk",), disk=disk)
        machines.close()
        for image in self.folder.glob("*.qcow2"):
            host.wait_until_unlocked(image)
            check = host.start("qemu-img", "check", image)
            is_sealed = not image.stat().st_mode & 0o222
            # The others were in use when their machine was killed: clusters may have leaked.
            self.assertIn(check.wait(), (0,) if is_sealed else (0, 3), check.output())

    @only_kvm
    def test_requests_in_flight_in_several_queues_are_of_one_instant(self):
        for image_format in ("raw", "qcow2"):
            with self.subTest(format=image_format):
                host = self.host(image_format)
                disk = self.folder / f"queues.{image_format}"
                host.run("vm-disk", "create", "-f", image_format, disk, 8 << 20)
                guest = self.rounds(3, host, jobs=("pattern", "disk"), second_jobs=("disk1",),
                                    disk=disk, disk_options=",queues=4")
                self.assertEqual(host.json("vm-ctl", "status", "m")["config"]["disks"][0]["queues"],
                                 4)
                for job in ("disk", "disk1"):
                    self.assertEqual(guest.last(job)["queues"], 2)

    @only_kvm
    def test_the_engine_of_a_disk_is_the_one_that_was_chosen(self):
        for engine in ("threads", "any"):
            with self.subTest(engine=engine):
                host = self.host(engine)
                disk = self.folder / f"{engine}.raw"
                disk.write_bytes(bytes(8 << 20))
                self.rounds(2, host, jobs=("pattern", "disk"), disk=disk,
                            disk_options=f",engine={engine}")
                self.assertEqual(host.json("vm-ctl", "status", "m")["config"]["disks"][0]["engine"],
                                 engine)
                pid = host.machines()["m"]["pid"]
                if engine == "threads":
                    self.assertEqual(rings(pid), 0)
                    self.assertEqual(threads(pid, "disk"), 9) # one waits, the others work
        host = self.host("wrong")
        self.assertIn("engine 'fast' is not known",
                      host.refuse("vm-run", "--name", "m", "--kernel", "none", "--disk",
                                  f"id=vda,path={disk},format=raw,engine=fast"))

    @only_kvm
    def test_a_host_without_io_uring_has_threads_do_it(self):
        host = self.host()
        forbidding = (ROOT / "tests/system/ferrytest/no_io_uring.py", host.env["FERRY_VM_RUN"])
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(8 << 20))
        guest = self.boot(host, jobs=("pattern", "disk"), disk=disk, program=forbidding,
                          disk_options=",queues=4")
        guest.check(2)
        pid = host.machines()["m"]["pid"]
        self.assertEqual(rings(pid), 0)
        self.assertEqual(threads(pid, "disk"), 4 + 8)
        kill_machine(host, "m")
        self.assertIn("disk 'vda': io_uring",
                      host.refuse(*forbidding, "--name", "m", "--kernel", disk, "--disk",
                                  f"id=vda,path={disk},format=raw,engine=io_uring"))

    @only_kvm
    def test_an_older_snapshot_has_its_disk_as_it_was_then(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(8 << 20))
        host = self.host()
        guest = self.boot(host, jobs=("pattern", "disk"), disk=disk)
        older = host.save("m")["id"]
        guest.check(2)
        host.save("m")
        guest.check(2)
        for turn in range(2): # one snapshot brings back any number of machines
            host.run("vm-restore", f"m/{older}", "--name", f"twin{turn}")
        for turn in range(2):
            self.follow(host, f"twin{turn}", guest.jobs).check(2)
        guest.check(1)

    def test_a_paused_machine_is_saved_and_stays_paused(self):
        host = self.host()
        guest = self.boot(host)
        guest.check(1)
        host.run("vm-ctl", "pause", "m")
        older, newer = host.save("m"), host.save("m")
        self.assertEqual(host.state("m"), "paused")
        self.assertEqual(newer["parent"], older["id"])
        # Who saves may be killed meanwhile, and who paused it may let it go on.
        saver = host.start("vm-save", "m", stop_at="copy the rest")
        self.assertTrue(saver.wait_until_stopped(), saver.output())
        saver.kill()
        host.wait_for_state("m", "paused")
        saver = host.start("vm-save", "m", stop_at="copy the rest")
        self.assertTrue(saver.wait_until_stopped(), saver.output())
        host.run("vm-ctl", "resume", "m")
        saver.signal(signal.SIGCONT)
        saver.must_fail(4)
        guest.check(2)
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        for snapshot in (older["snapshot"], newer["snapshot"]):
            host.run("vm-restore", snapshot, "--paused")
            again = host.save("m")["snapshot"]
            self.assertEqual(host.state("m"), "paused")
            host.run("vm-ctl", "quit", "m", "--wait", "10")
            host.run("vm-restore", again)
            self.follow(host, "m", guest.jobs).check(2)
            host.run("vm-ctl", "quit", "m", "--wait", "10")

    def test_snapshots_of_one_machine_share_what_did_not_change(self):
        host = self.host()
        guest = self.boot(host, rate=500)
        guest.check(1)
        if MACHINE == "kvm": # the other one starts with its memory filled
            wait_for("all memory is written once", lambda: guest.last("pattern")["pass"] > 0)
        first = host.save("m")
        second = host.save("m")
        guest.check(1)
        self.assertEqual(first["parent"], "")
        self.assertEqual(second["parent"], first["id"])
        self.assertLess(second["pages_written"], first["pages_written"])

    def test_an_older_snapshot_can_be_restored_beside_the_machine(self):
        host = self.host()
        guest = self.boot(host)
        older = host.save("m")["id"]
        guest.check(1)
        host.save("m")
        host.run("vm-restore", f"m/{older}", "--name", "twin")
        twin = self.follow(host, "twin", guest.jobs)
        twin.check(2)
        guest.check(1)
        self.assertEqual(sorted(host.machines()), ["m", "twin"])

    def test_a_restored_machine_can_be_left_paused(self):
        host = self.host()
        guest = self.boot(host)
        host.save("m")
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.run("vm-restore", "m", "--paused")
        self.assertEqual(host.state("m"), "paused")
        host.run("vm-ctl", "resume", "m")
        self.follow(host, "m", guest.jobs).check(2)

    def test_a_parent_is_not_deleted_and_a_child_is(self):
        host = self.host()
        self.boot(host)
        parent = host.save("m")["id"]
        child = host.save("m")["id"]
        self.assertIn(child, host.refuse("vm-snapshot", "delete", f"m/{parent}"))
        host.run("vm-snapshot", "delete", f"m/{child}")
        host.run("vm-snapshot", "verify", f"m/{parent}")

    def test_names_that_are_not_there_are_told(self):
        host = self.host()
        host.start("vm-save", "nobody").must_fail(3)
        host.start("vm-restore", "nobody").must_fail(3)
        missing = self.folder / "not-mounted"
        for words in (("vm-restore", "m"), ("vm-snapshot", "list"), ("vm-snapshot", "tree"),
                      ("vm-snapshot", "verify", "m"), ("vm-snapshot", "delete", "m/2026")):
            said = host.start(*words, "--store", missing).must_fail(3)
            self.assertIn(f"there is no store '{missing}'", said)
        self.assertEqual(host.machine_processes(), [])

    def test_a_name_that_is_taken_is_not_restored_to(self):
        host = self.host()
        guest = self.boot(host)
        host.save("m")
        host.refuse("vm-restore", "m")
        host.wait_for_processes(1)
        guest.check(2)


if __name__ == "__main__":
    main()
