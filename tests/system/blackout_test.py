#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What moves and saves report as the guest's pause is what the guest's own clock sees.

The guest knows which gap between two readings of its clock is the pause: KVM leaves a flag in the
clock page. What is reported ends when a vCPU's thread goes in; how long it then waits for a
processor is not ours. So half of the turns must agree, within 5 ms or, on a busy machine, within
the gaps that a guest sees anyway. No turn may report more than the guest saw, but for what two
hosts do not know of the distance between their clocks.
"""

import json
import statistics

from ferrytest.case import Case, main, needs, only_kvm
from ferrytest.receiver import Receiver

DIFFERENCE_US_MAX = 5000
PAUSE_US_MAX = 300000
TURNS = 5


@only_kvm
@needs("vm-migrate", "vm-receive", "vm-certs", "vm-save", "vm-ctl")
class Blackout(Case):
    """One vCPU that does nothing but read its clock."""

    def judge(self, what, turns, excess_us_max):
        """Compares and prints pairs of what was reported and what the guest saw."""
        for reported_us, seen_us in turns:
            print(f"{what}: reported {reported_us} us, guest saw {seen_us} us", flush=True)
            self.assertGreater(reported_us, 0)
            self.assertLess(reported_us, PAUSE_US_MAX)
            self.assertLess(reported_us, seen_us + excess_us_max)
        self.assertGreater(len(turns), TURNS // 2)
        difference_us = statistics.median(abs(seen - reported) for reported, seen in turns)
        print(f"{what}: median difference {difference_us} us, gap without it {self.usual_us} us")
        self.assertLess(difference_us, max(DIFFERENCE_US_MAX, self.usual_us))

    def quiet_guest(self, host):
        """A guest that has settled down, and what it sees undisturbed."""
        guest = self.boot(host, jobs=("clock",), options="report_ms=500 sleep=0")
        guest.check(4)
        self.stops = guest.last("clock")["stops"]
        self.usual_us = max(report["gap_us"] for report in guest.reports["clock"][-3:])
        return guest

    def seen_us(self, guest):
        """How long the guest says that it stood; None when that fell into one of its reports."""
        guest.check(1)
        guest.check(1) # one that began after the pause
        report = guest.last("clock")
        self.assertGreater(report["stops"], self.stops)
        self.stops = report["stops"]
        self.usual_us = max(self.usual_us, report["gap_us"])
        return report["stop_us"] or None

    def test_a_move(self):
        hosts = self.hosts()
        receivers = [Receiver(host) for host in hosts]
        guest = self.quiet_guest(hosts[0])
        turns = []
        for turn in range(TURNS):
            here, there = hosts[turn % 2], hosts[1 - turn % 2]
            output = here.run("vm-migrate", "m", receivers[1 - turn % 2].address(), "--json")
            guest.close()
            guest = self.follow(there, "m", guest.jobs)
            reported_us = json.loads(output.splitlines()[-1])["blackout_us"]
            turns.append((reported_us, self.seen_us(guest)))
        self.judge("move", [turn for turn in turns if turn[1] is not None], DIFFERENCE_US_MAX)

    def test_a_save(self):
        host = self.host()
        guest = self.quiet_guest(host)
        turns = []
        for _ in range(TURNS):
            reported_us = host.json("vm-save", "m")["pause_us"]
            turns.append((reported_us, self.seen_us(guest)))
        self.judge("save", [turn for turn in turns if turn[1] is not None], 100)


if __name__ == "__main__":
    main()
