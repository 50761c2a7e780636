# SPDX-License-Identifier: Apache-2.0
"""Judges outages from outside the guest: programs on the witness that talk to it all the time.

What a virtual machine monitor says about its own pauses is a claim; what a third machine on the
network sees is what users see.
"""

from ferrylab import network
from ferrylab.guest import parse_status
from ferrylab.trouble import Failure

UDP_PERIOD_MS = 20


class Watch:
    """A UDP probe and a TCP connection from the witness to the guest."""

    def __init__(self, witness):
        self.witness = witness

    def start(self):
        """Starts watching; the guest must be up."""
        self.stop()
        address = network.GUEST_ADDRESS
        self.witness.start("udpprobe", f"udpprobe {address} 9002 {UDP_PERIOD_MS}")
        self.witness.start("tcpcount", f"tcpcount {address} 9001")
        self.witness.wait_for("the guest answers", self.is_answered, 60)

    def is_answered(self):
        """Whether both programs have heard from the guest."""
        figures = self.read()
        return figures.get("udpprobe", {}).get("answered", 0) > 0 and \
            figures.get("tcpcount", {}).get("count", 0) > 0

    def read(self):
        """What the programs say at the moment."""
        lines = self.witness.try_run("cat /run/checks/udpprobe /run/checks/tcpcount").out
        return dict(parse_status(line) for line in lines.splitlines())

    def forget(self):
        """Starts a new stretch of time for the largest gaps."""
        self.witness.run("killall -USR1 udpprobe tcpcount")

    def figures(self):
        """The largest gaps in milliseconds since `forget`; a broken connection is a Failure."""
        now = self.read()
        tcp, udp = now["tcpcount"], now["udpprobe"]
        if tcp["errors"] or not tcp["is_open"]:
            raise Failure(f"the TCP connection to the guest did not survive: {tcp}")
        if udp["errors"]:
            raise Failure(f"the guest answered datagrams that nobody sent, or twice: {udp}")
        return {"udp_gap_ms": udp["gap_ms"], "tcp_gap_ms": tcp["gap_ms"]}

    def stop(self):
        """Stops watching."""
        for program in ("udpprobe", "tcpcount"):
            self.witness.kill(program)
        self.witness.run("rm -f /run/checks/udpprobe /run/checks/tcpcount")
