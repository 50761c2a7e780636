#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long does a save stop the guest, and how soon does a restored one run?

    python3 bench/snapshot_bench.py [--preset release] [--memory 256,1024] [--rounds 30]

Each line: name, unit, p50, p99, max, rounds, and the machine. Both figures must not grow with the
guest's memory: the ratio of the largest to the smallest guest is printed, and 1.5 would make us
look for what grows. The pause is set against its bound, the residual pages at the speed at which
this host gathers pages; 20 ms for it and 30 ms for the restore are the goals. `guest stood` is the
distance between the guest's two readings of the clock between which it was stopped; it should be
within 5 ms of the reported pause. vm-run's own memory is all that is private but the guest's RAM:
8 MiB is the goal.
"""
import argparse
import os
import pathlib
import signal
import statistics
import tempfile
import time

from ferry_host import FerryHost, wait_until
from figures import line, machine_line

ROOT = pathlib.Path(__file__).resolve().parent.parent
GUEST = "cpu0=clock cpu1=dirty cpus=2 ws={ws} rate={rate} random={random} report_ms=100"


def gather_ns_per_page():
    """Copies pages in a scattered order, as a save does in the pause."""
    pages, page = 1 << 15, 4096
    source = bytearray(os.urandom(page)) * pages
    target = bytearray(pages * page)
    view = memoryview(source)
    start = time.perf_counter_ns()
    at = 0
    for i in range(pages):
        at = (at + 7919) % pages
        target[i * page:(i + 1) * page] = view[at * page:(at + 1) * page]
    return (time.perf_counter_ns() - start) / pages


def guest_stops(console):
    """How often the guest says that it has stood so far."""
    return console.reports("clock")[-1].get("stops", 0)


def guest_stood_ms(console, stops):
    """How long the guest says that it stood since it had so many stops; 0: it does not know."""
    console.wait_for(lambda: guest_stops(console) > stops, "report of a stop")
    return console.reports("clock")[-1]["stop_us"] / 1000


def save_rounds(host, console, rounds, label):
    """Saves while the guest works; the first one is full, the rest are increments."""
    pauses, stood, errors, totals, residuals = [], [], [], [], []
    for _ in range(rounds):
        stops = guest_stops(console)
        report = host.run_json("vm-save", "guest")
        pauses.append(report["pause_us"] / 1000)
        totals.append(report["total_us"] / 1000)
        residuals.append(report["residual_pages"])
        stood_ms = guest_stood_ms(console, stops)
        if stood_ms > 0:
            stood.append(stood_ms)
            errors.append(abs(stood_ms - pauses[-1]))
    bound = statistics.median(residuals) * gather_ns_per_page() / 1e6
    median = line(f"save pause, {label}", "ms", pauses, f"gather bound {bound:.2f} ms")
    line(f"save guest stood, {label}", "ms", stood)
    line(f"save stood against reported, {label}", "ms", errors)
    line(f"save full, {label}", "ms", totals[:1])
    line(f"save increment, {label}", "ms", totals[1:])
    line(f"save residual, {label}", "pages", residuals)
    return median


def restore_rounds(host, rounds, label):
    """Restores the newest snapshot again and again."""
    firsts, totals = [], []
    for _ in range(rounds):
        wait_until(lambda: not is_running(host), "the machine is gone")
        report = host.run_json("vm-restore", "guest")
        firsts.append(report["first_run_us"] / 1000)
        totals.append(report["total_us"] / 1000)
        os.kill(report["pid"], signal.SIGKILL)
    median = line(f"restore to first instruction, {label}", "ms", firsts)
    line(f"restore command, {label}", "ms", totals)
    return median


def is_running(host):
    try:
        host.status("guest")
    except RuntimeError:
        return False
    return True


def measure(programs, payload, memory_mib, args):
    """Both figures for one size of guest, three quarters of it random."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir=args.folder) as folder:
        host = FerryHost(programs, folder)
        try:
            command_line = GUEST.format(ws=args.working_set, rate=args.rate,
                                        random=memory_mib * 3 // 4)
            console = host.start_guest("guest", payload, memory_mib, command_line, cpus=2)
            console.wait_for(lambda: console.reports("clock"), "clock report")
            label = f"{memory_mib} MiB"
            line(f"vm-run's own memory, {label}", "MiB", [host.private_kib("guest") / 1024])
            pause = save_rounds(host, console, args.rounds, label)
            line(f"vm-run's own memory after saves, {label}", "MiB",
                 [host.private_kib("guest") / 1024])
            os.kill(host.pid_of("guest"), signal.SIGKILL)
            return pause, restore_rounds(host, args.rounds, label)
        finally:
            host.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="release")
    parser.add_argument("--memory", default="256,1024,4096", help="MiB, separated by commas")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--working-set", type=int, default=16, help="MiB that the guest dirties")
    parser.add_argument("--rate", type=int, default=5000, help="pages a second")
    parser.add_argument("--folder", default=None, help="where stores are kept")
    args = parser.parse_args()
    build = ROOT / "build" / args.preset
    print(machine_line())
    results = [measure(build / "bin", build / "guests" / "payload.elf", int(memory), args)
               for memory in args.memory.split(",")]
    if len(results) > 1:
        print(f"ratio of the largest guest to the smallest: pause {results[-1][0] / results[0][0]:.2f}, "
              f"restore {results[-1][1] / results[0][1]:.2f}")


if __name__ == "__main__":
    main()
