#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long does a migration over TLS take, and how long does the guest stand still?

    python3 bench/migration_bench.py [--preset release] [--memory 1024] [--rounds 5]

The same payload guest, full of random memory and otherwise idle, is moved between two processes of
this host by Ferry and, in turn, by QEMU with TLS and multifd over as many channels. Each line:
name, unit, p50, p99, max, rounds. The ratio of the medians of total time is the figure that
matters: above 1.0 we look for what QEMU does better. `guest stood` is the distance between the two
readings of the guest's clock between which its CPU was stopped here and resumed there; Ferry's own
account of the blackout must be within 5 ms of it, and under 20 ms for an idle guest. `guest gap` is
the largest distance between any two readings around the move: copying takes CPU time too. RAM is touched and given back before each
move, because the first touch of memory costs several times more on hosts that give it back.
"""
import argparse
import mmap
import os
import pathlib
import socket
import subprocess
import tempfile

import qemu_peer
from ferry_host import FerryHost, wait_until
from figures import line, machine_line

ROOT = pathlib.Path(__file__).resolve().parent.parent
GUEST = "cpu0=clock,dirty random={random} ws=16 rate={rate} report_ms=2000"


def warm_memory(mib):
    """Makes the host back that much memory, for both sides alike."""
    with mmap.mmap(-1, mib << 20) as memory:
        for at in range(0, mib << 20, 4096):
            memory[at] = 1


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class FerryPair:
    """Two hosts in two folders, with certificates of one authority."""

    def __init__(self, programs, folder):
        folder = pathlib.Path(folder)
        self.source = FerryHost(programs, folder / "a")
        self.target = FerryHost(programs, folder / "b")
        self.source.run("vm-certs", "init")
        self.source.run("vm-certs", "issue", "localhost")
        issued = folder / "a" / "config" / "hosts" / "localhost"
        for certificate in issued.iterdir():
            copy = folder / "b" / "config" / certificate.name
            copy.write_bytes(certificate.read_bytes())
            copy.chmod(0o600)

    def migrate_once(self, payload, memory_mib, command_line, channels, port):
        """Returns Ferry's report and what the guest's clock says of the move."""
        receiver = self.target.popen("vm-receive", "--listen", f"127.0.0.1:{port}",
                                     stderr=subprocess.DEVNULL)
        try:
            self.source.start_guest("guest", payload, memory_mib, command_line)
            wait_until(lambda: is_listening(port), "vm-receive listens")
            report = self.source.run_json("vm-migrate", "guest", f"localhost:{port}",
                                          "--channels", channels)
            console = self.target.watch_console("guest")
            console.wait_for(lambda: console.reports("clock"), "clock report")
            clock = console.reports("clock")[0]
            self.target.run("vm-ctl", "quit", "guest")
            return report, clock
        finally:
            receiver.terminate()
            receiver.wait()

    def close(self):
        self.source.close()
        self.target.close()


def note_clock(clock, side):
    """Takes one clock report of an arrived guest into the figures of a side."""
    side["gap"].append(clock["gap_us"] / 1000)
    if clock["stop_us"] > 0:  # else it fell into a report of the guest
        side["stood"].append(clock["stop_us"] / 1000)
        return True
    return False


def measure(pair, payload, args, folder):
    """The two sides in turn, so that whatever else the machine does hits both."""
    command_line = GUEST.format(random=args.memory, rate=args.rate)
    memory_mib = args.memory + 256
    ferry = {"total": [], "blackout": [], "stood": [], "gap": [], "error": []}
    qemu = {"total": [], "downtime": [], "stood": [], "gap": []}
    for turn in range(args.rounds):
        warm_memory(2 * memory_mib)
        report, clock = pair.migrate_once(payload, memory_mib, command_line, args.channels,
                                          args.port)
        ferry["total"].append(report["total_us"] / 1000)
        ferry["blackout"].append(report["blackout_us"] / 1000)
        if note_clock(clock, ferry):
            ferry["error"].append(abs(clock["stop_us"] - report["blackout_us"]) / 1000)
        if qemu_peer.is_installed():
            warm_memory(2 * memory_mib)
            total_s, downtime_ms, clock, _ = qemu_peer.migrate_once(
                pathlib.Path(folder) / "qemu", payload, memory_mib, command_line, args.channels,
                300, args.port + 1 + turn)
            qemu["total"].append(total_s * 1000)
            qemu["downtime"].append(downtime_ms)
            note_clock(clock, qemu)
    return ferry, qemu


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="release")
    parser.add_argument("--memory", type=int, default=1024, help="MiB of random memory")
    parser.add_argument("--rate", type=int, default=0, help="pages a second that the guest dirties")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--port", type=int, default=7460)
    args = parser.parse_args()
    build = ROOT / "build" / args.preset
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        pair = FerryPair(build / "bin", folder)
        try:
            ferry, qemu = measure(pair, build / "guests" / "payload.elf", args, folder)
        finally:
            pair.close()
    label = f"{args.memory} MiB, {args.rate} pages/s"
    ours = line(f"migration total, {label}", "ms", ferry["total"])
    line("migration blackout, reported", "ms", ferry["blackout"])
    line("migration guest stood", "ms", ferry["stood"])
    line("migration stood against reported", "ms", ferry["error"])
    line("migration guest gap", "ms", ferry["gap"])
    if not qemu["total"]:
        print("QEMU is not installed: no ratio")
        return
    theirs = line(f"QEMU total, {label}", "ms", qemu["total"])
    line("QEMU downtime, reported", "ms", qemu["downtime"])
    line("QEMU guest stood", "ms", qemu["stood"])
    line("QEMU guest gap", "ms", qemu["gap"])
    print(f"ratio of total time to QEMU's: {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
