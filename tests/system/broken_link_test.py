#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Links that break at any point of a move: the guest goes on where it was, nothing is left over."""

from ferrytest.case import Case, main, needs
from ferrytest.receiver import PATIENT, Receiver

# Early in the handshake, in the TLS of the channels, within memory, and late in it.
POINTS = (100, 3000, 20000, 1 << 20, 8 << 20)


@needs("vm-migrate", "vm-receive", "vm-certs", "vm-ctl")
class BrokenLink(Case):
    """vm-migrate goes through a link of ours."""

    def setUp(self):
        super().setUp()
        self.source, self.target = self.hosts()
        self.receiver = Receiver(self.target)
        self.guest = self.boot(self.source)

    def move_over(self, fault, after_bytes):
        """A move that the link's fault ends; returns what vm-migrate says."""
        link = self.link(self.receiver, fault, after_bytes)
        output = self.source.refuse("vm-migrate", "m", self.receiver.address(link.port), *PATIENT)
        self.assertTrue(link.has_struck.is_set())
        self.assertRegex(output, r"vm-migrate: \S")
        self.assertEqual(self.source.state("m"), "running")
        link.close()
        self.target.wait_for_processes(0, seconds=30)
        return output

    def finish(self):
        """After the fault is gone, the same machine moves to the same receiver."""
        self.guest.check(2)
        self.source.run("vm-migrate", "m", self.receiver.address(), *PATIENT)
        self.follow(self.target, "m", self.guest.jobs).check(2)

    def test_a_cut_link(self):
        for after_bytes in POINTS:
            with self.subTest(after_bytes=after_bytes):
                self.move_over("cut", after_bytes)
        self.finish()

    def test_a_corrupted_link(self):
        for after_bytes in POINTS:
            with self.subTest(after_bytes=after_bytes):
                self.move_over("corrupt", after_bytes)
        self.finish()

    def test_a_link_that_stalls_in_the_handshake(self):
        self.move_over("stall", POINTS[0])
        self.finish()

    def test_a_link_that_stalls_in_memory(self):
        self.move_over("stall", POINTS[3])
        self.finish()

    def test_nobody_listens(self):
        link = self.link(self.receiver, None, 0)
        port = link.port
        link.close()
        self.source.refuse("vm-migrate", "m", self.receiver.address(port), *PATIENT)
        self.finish()


if __name__ == "__main__":
    main()
