# SPDX-License-Identifier: Apache-2.0
"""Hosts that know each other by certificates, and vm-receive on one of them."""

import pathlib
import re

from ferrytest.program import process_state, wait_for

# For moves whose length is not the subject: on a busy machine a link may be slower than the guest
# writes, and without this a move would rightly be refused.
PATIENT = ("--downtime", "20000")

TARGET_NAME = "localhost" # what the target's certificate must say, whatever the link goes through


def introduce(source, target):
    """Makes an authority and certificates, and puts them where both hosts look."""
    source.run("vm-certs", "init", "--name", "localhost")
    source.run("vm-certs", "issue", "target", "--name", TARGET_NAME, "--out",
               target.env["FERRY_CONFIG_DIR"])


class Receiver:
    """vm-receive on a port that the kernel chooses."""

    def __init__(self, host, stop_at=None, arguments=()):
        self.program = host.start("vm-receive", "--listen", "127.0.0.1:0", *arguments,
                                  stop_at=stop_at)
        found = wait_for("vm-receive listens", lambda: self.program.is_running() and
                         re.search(r"listening.*port=(\d+)", self.program.output()) or
                         not self.program.is_running() and "ended")
        assert found != "ended", self.program.output()
        self.port = int(found.group(1))

    def address(self, port=None):
        """What vm-migrate is told."""
        return f"{TARGET_NAME}:{port or self.port}"

    def family(self):
        """vm-receive and all that it has started, directly or not."""
        parents = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                parents.setdefault(int(stat[1]), []).append(int(entry.name))
        found, waiting = [], [self.program.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += parents.get(pid, [])
        return found

    def stopped(self):
        """The process of the family that has stopped itself at its step; None: none has."""
        return next((pid for pid in self.family() if process_state(pid) in ("T", "t")), None)

    def wait_until_stopped(self, seconds=60):
        """Waits for that; returns its process number."""
        return wait_for("a receiving process stops", self.stopped, seconds)
