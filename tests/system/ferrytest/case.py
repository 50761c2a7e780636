# SPDX-License-Identifier: Apache-2.0
"""How a system test begins and ends.

Each file of tests runs with the machine that FERRY_TEST_MACHINE names: `kvm`, the payload guest in
vm-run, or `fake`, the machine without KVM. A file of which nothing could run exits with 77, and its
last line is the reason.
"""

import os
import pathlib
import shutil
import sys
import tempfile
import unittest

from ferrytest.host import BUILD, Host
from ferrytest.link import Link
from ferrytest.machine import Guest, boot
from ferrytest.receiver import introduce
from ferrytest.trouble import Failure

MACHINE = os.environ.get("FERRY_TEST_MACHINE", "kvm")
PROGRAMS = {"kvm": BUILD / "bin" / "vm-run", "fake": BUILD / "tests" / "fake-vm-run"}


def reason_to_skip(*programs):
    """Why tests that need these programs can not run here; None when they can."""
    if MACHINE == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm is missing or may not be used"
    for path in (PROGRAMS[MACHINE], *(BUILD / "bin" / program for program in programs)):
        if not path.exists():
            return f"{path.name} is not built"
    return None


def needs(*programs):
    """Skips a class of tests where they can not run."""
    reason = reason_to_skip(*programs)
    return unittest.skipIf(reason is not None, reason)


only_kvm = unittest.skipIf(MACHINE != "kvm", "needs a guest that runs on KVM")


class Case(unittest.TestCase):
    """One test: its own hosts, which are gone afterwards with all that they ran."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ft-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def host(self, name="a"):
        """A host; several are told apart by their folders."""
        host = Host(self.folder / name, PROGRAMS[MACHINE])
        self.addCleanup(self.expect_no_reports, host)
        self.addCleanup(host.close)
        return host

    def expect_no_reports(self, host):
        """After all programs have ended."""
        reports = host.sanitizer_reports()
        if reports:
            raise Failure(reports)

    def hosts(self):
        """Two hosts that may move machines to each other."""
        source, target = self.host("source"), self.host("target")
        introduce(source, target)
        return source, target

    def link(self, receiver, fault, after_bytes):
        """A faulty link to a receiver."""
        link = Link(receiver.port, fault, after_bytes)
        self.addCleanup(link.close)
        return link

    def boot(self, host, name="m", **settings):
        """A machine at work."""
        guest = boot(host, name, **settings)
        self.addCleanup(guest.close)
        return guest

    def follow(self, host, name, jobs):
        """A machine that was restored or has arrived."""
        guest = Guest(host, name, jobs)
        self.addCleanup(guest.close)
        return guest


def main():
    """Runs the tests of the calling file."""
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    result = program.result
    if result.testsRun > 0 and len(result.skipped) == result.testsRun:
        print(result.skipped[0][1], flush=True)
        sys.exit(77)
    sys.exit(not result.wasSuccessful())
