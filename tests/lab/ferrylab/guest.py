# SPDX-License-Identifier: Apache-2.0
"""A running guest, as it describes itself: the status lines of its checks, its kernel's log."""

import re
import shlex
import time

from ferrylab import network
from ferrylab.trouble import CommandFailed, Failure

UP_SECONDS_MAX = 180
COMPLAINTS = "soft lockup|hard LOCKUP|rcu.*stall|hung task|I/O error|BUG:|Oops|TSC unstable"


def parse_status(line):
    """`memcheck errors=0 rounds=3` as a name and a dict of numbers."""
    name, *pairs = line.split()
    return name, {key: float(value) for key, value in (pair.split("=") for pair in pairs)}


class Guest:
    """The one guest of the lab, reached over the guest LAN through the witness."""

    def __init__(self, witness):
        self.witness = witness

    def try_run(self, command, timeout=60):
        """Runs a command in the guest, whatever its status."""
        line = f"timeout {timeout} labc {network.GUEST_ADDRESS} 7 {shlex.quote(command)}"
        return self.witness.try_run(line, timeout + 10)

    def run(self, command, timeout=60):
        """Runs a command in the guest that must succeed; returns what it printed."""
        output = self.try_run(command, timeout)
        if output.code != 0:
            raise CommandFailed("guest", command, output)
        return output.out.strip()

    def wait_until_up(self, host, machine, is_alive):
        """Waits for the guest's word on its console; returns that line as a dict."""
        started = time.monotonic()

        def seen():
            console = host.try_run(f"cat {machine.console_log()} 2>/dev/null").out
            found = re.search(r"^GUEST UP (.*)\n", console.replace("\r", ""), re.M)
            if found is None and not is_alive():
                raise Failure(f"{host.name}: the machine ended before its guest was up\n"
                              f"{host.log(machine.name)[-2000:]}\n{console[-2000:]}")
            return found

        found = host.wait_for("the guest is up", seen, UP_SECONDS_MAX)
        facts = dict(pair.split("=", 1) for pair in found.group(1).split())
        facts["wall_seconds"] = time.monotonic() - started
        return facts

    def checks(self):
        """The newest status of every check in the guest."""
        lines = self.run("cat /run/checks/*").splitlines()
        return dict(parse_status(line) for line in lines)

    def verify(self, timeout=120):
        """Waits until all memory and some disk was verified anew; any error is a Failure.

        Two more rounds of the memory check mean that every page was compared at least once since
        this function was called.
        """
        before = self.checks()
        self.raise_on_errors(before)

        def is_verified():
            now = self.checks()
            self.raise_on_errors(now)
            return now if all(has_advanced(before[name], now[name]) for name in before) else None

        result = self.witness.wait_for("the guest's checks advance", is_verified, timeout)
        self.raise_on_complaints()
        return result

    def raise_on_errors(self, checks):
        """A check that found something wrong is a Failure."""
        for name, status in checks.items():
            if status["errors"] != 0:
                raise Failure(f"guest: {name} found {status['errors']:.0f} errors: {status}")

    def raise_on_complaints(self):
        """So is a kernel that noticed lost time or lost I/O."""
        output = self.try_run(f"dmesg | grep -E '{COMPLAINTS}'")
        if output.out:
            raise Failure(f"guest: its kernel complains:\n{output.out}")


def has_advanced(before, now):
    """Whether a check has done enough since to prove that the guest is whole."""
    wanted = {"rounds": 2, "writes": 10, "samples": 10, "returned": 10}
    return all(now[key] >= before[key] + more for key, more in wanted.items() if key in before)
