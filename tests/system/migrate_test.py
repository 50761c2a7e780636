#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Machines move between hosts while they work: there and back, several at once, cancelled."""

import json
import signal

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.receiver import PATIENT, Receiver

ROUNDS = 4


def events(output):
    """The JSON lines that vm-migrate prints."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


@needs("vm-migrate", "vm-receive", "vm-certs", "vm-ctl")
class Migrate(Case):
    """Two hosts on one machine, each with its own folders; links are TCP with TLS."""

    def there_and_back(self, count, **settings):
        """Moves a machine `count` times between two hosts."""
        hosts = self.hosts()
        receivers = [Receiver(host) for host in hosts]
        guest = self.boot(hosts[0], **settings)
        jobs = guest.jobs
        for turn in range(count):
            here, there = hosts[turn % 2], hosts[1 - turn % 2]
            guest.check(1)
            output = here.run("vm-migrate", "m", receivers[1 - turn % 2].address(), *PATIENT,
                              "--json")
            self.assertEqual(events(output)[-1]["event"], "moved", output)
            guest.close()
            here.wait_for_state("m", "gone")
            self.assertEqual(there.state("m"), "running")
            guest = self.follow(there, "m", jobs)
        guest.check(3)
        for host, machines in zip(hosts, (1 - count % 2, count % 2)):
            host.wait_for_processes(machines)
        return guest

    def test_memory_is_exact_over_many_moves(self):
        self.there_and_back(ROUNDS)

    def test_a_machine_that_writes_fast_still_arrives(self):
        self.there_and_back(2, rate=40000)

    @only_kvm
    def test_two_vcpus_with_timer_floating_point_and_clock(self):
        self.there_and_back(ROUNDS, jobs=("pattern", "timer"),
                            second_jobs=("fpu", "clock", "dirty"))

    @only_kvm
    def test_a_machine_takes_along_the_cpu_that_a_file_described(self):
        source, target = self.hosts()
        model = self.folder / "model"
        model.write_text("# of the oldest host\nbase host\n-rdrand\n-smap\n")
        guest = self.boot(source, arguments=("--cpu", f"file={model}"))
        guest.check(1)
        model.unlink()
        source.run("vm-migrate", "m", Receiver(target).address(), *PATIENT)
        self.follow(target, "m", guest.jobs).check(2)

    @only_kvm
    def test_memory_in_two_slots(self):
        self.there_and_back(2, memory=96, arguments=("--memory-below-4g", 32), options="mb=20")

    @only_kvm
    def test_a_disk_on_shared_storage_goes_along(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(8 << 20))
        self.there_and_back(2, jobs=("pattern", "disk"), disk=disk)

    @only_kvm
    def test_a_disk_with_several_queues_goes_along(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(8 << 20))
        guest = self.there_and_back(ROUNDS, jobs=("pattern", "disk"), second_jobs=("disk1",),
                                    disk=disk, disk_options=",queues=4")
        for job in ("disk", "disk1"):
            self.assertEqual(guest.last(job)["queues"], 2)

    def test_several_machines_arrive_at_once(self):
        source, target = self.hosts()
        receiver = Receiver(target)
        names = ("one", "two", "three")
        guests = [self.boot(source, name, memory=32) for name in names]
        moves = [source.start("vm-migrate", name, receiver.address(), *PATIENT) for name in names]
        for move in moves:
            move.must_succeed()
        for name, guest in zip(names, guests):
            self.follow(target, name, guest.jobs).check(2)
        source.wait_for_processes(0)

    def test_a_cancelled_move_leaves_the_guest_where_it_is(self):
        source, target = self.hosts()
        receiver = Receiver(target)
        guest = self.boot(source)
        move = source.start("vm-migrate", "m", receiver.address(), "--bandwidth", "1")
        guest.check(2)
        move.signal(signal.SIGINT)
        self.assertNotEqual(move.wait(30), 0)
        self.assertEqual(source.state("m"), "running")
        target.wait_for_processes(0)
        guest.check(2)
        source.run("vm-migrate", "m", receiver.address(), *PATIENT)
        self.follow(target, "m", guest.jobs).check(2)

    def test_another_command_can_cancel_it(self):
        source, target = self.hosts()
        receiver = Receiver(target)
        guest = self.boot(source)
        move = source.start("vm-migrate", "m", receiver.address(), "--bandwidth", "1")
        guest.check(1)
        source.run("vm-migrate", "--cancel", "m")
        self.assertNotEqual(move.wait(30), 0)
        self.assertEqual(source.state("m"), "running")
        target.wait_for_processes(0)
        guest.check(2)

    def test_a_name_that_is_taken_at_the_target_is_refused_first(self):
        source, target = self.hosts()
        receiver = Receiver(target)
        guest = self.boot(source, memory=32)
        other = self.boot(target, memory=32)
        self.assertIn("'m'", source.refuse("vm-migrate", "m", receiver.address(), *PATIENT))
        target.wait_for_processes(1)
        guest.check(1)
        other.check(1)


if __name__ == "__main__":
    main()
