# SPDX-License-Identifier: Apache-2.0
"""The network that memory moves over, as one host sends into it, made worse on purpose."""

CARD = "eth2"
TC = "/sbin/tc"
# Slow enough that something can happen while memory is on its way, on any machine.
SLOW = "tbf rate 8mbit burst 32k latency 100ms"
# TCP repairs all of it; what it does not see, TLS would.
NOISY = "netem delay 5ms loss 2% duplicate 2% corrupt 2% reorder 20%"
DROPS_ALL = "netem loss 100%"


class MigrationLink:
    """Faults of the link at one host's end; `mend` takes all of them away."""

    def __init__(self, host):
        self.host = host
        host.run("modprobe sch_tbf && modprobe sch_netem")

    def shape(self, discipline):
        """Sends through a queueing discipline from now on."""
        self.host.run(f"{TC} qdisc replace dev {CARD} root {discipline}")

    def cut(self):
        """Pulls the cable."""
        self.host.cut(CARD)

    def mend(self):
        """As new."""
        self.host.mend(CARD)
        self.host.try_run(f"{TC} qdisc del dev {CARD} root")

    def wait_for_bytes(self, count, timeout=120):
        """Waits until so many more bytes have left."""
        start = self.sent_bytes()
        self.host.wait_for("memory is on its way", lambda: self.sent_bytes() - start > count,
                           timeout)

    def sent_bytes(self):
        """Bytes that left through the card."""
        return int(self.host.run(f"cat /sys/class/net/{CARD}/statistics/tx_bytes"))
