#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How do disks of ours compare with QEMU's, and what do chains cost?

    python3 bench/disk_bench.py [--preset release] [--folder /var/tmp] [--rounds 5] [--requests 20000]

vm-disk bench and qemu-img bench get the same options, images of the same size on the same file
system, past the page cache, by io_uring, in turns; NBD servers (both by the page cache) get the same
client. Each line: the median of ours, of theirs (or of what else it is set against), the median of the
ratios of each turn, and the goal: what a disk does changes from second to second, for both alike. A
goal that is missed ends the run with 1 and would make us look why.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from figures import machine_line

ROOT = pathlib.Path(__file__).resolve().parent.parent
DISK = 1 << 30
STEP = 257 * 4096  # comes by every 4 KiB of the disk before it repeats one
DEPTH_100 = 100


class Bench:
    """The folder, the programs, and what has been missed."""

    def __init__(self, arguments, folder):
        self.vm_disk = ROOT / "build" / arguments.preset / "bin" / "vm-disk"
        self.folder = pathlib.Path(folder)
        self.rounds = arguments.rounds
        self.requests = arguments.requests
        self.missed = 0

    def call(self, *words):
        """Runs a program in the folder; gives its output, and the bytes that it wrote to disk."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen([str(word) for word in words], cwd=self.folder,
                                       stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read().decode(errors="replace")
        if process.returncode != 0:
            sys.exit(f"{words}: {text}")
        return text, usage.ru_oublock * 512

    def create(self, name, *words):
        """An image of ours."""
        self.call(self.vm_disk, "create", "--force", name, *words)
        return name

    def create_theirs(self, name, *words):
        """An image of QEMU's."""
        self.call("qemu-img", "create", "-q", "-f", "qcow2", *words, name, DISK)
        return name

    def fill(self, name, image_format):
        """Gives every part of an image its place, and data."""
        self.call(self.vm_disk, "bench", "-f", image_format, "-w", "-c", DISK >> 20, "-d", 8, "-s",
                  "1M", "--pattern", 90, name)

    def ours(self, image, *words, image_format="qcow2", step=STEP, requests=None):
        """Requests a second, bytes written, and the whole report."""
        text, written = self.call(self.vm_disk, "bench", "--json", "-f", image_format, "-t", "none",
                                  "-s", 4096, "-S", step, "-c", requests or self.requests, *words,
                                  image)
        report = json.loads(text)
        return report["requests_per_second"], written, report

    def theirs(self, image, *words, image_format="qcow2", step=STEP, requests=None):
        """The same by qemu-img."""
        requests = requests or self.requests
        text, written = self.call("qemu-img", "bench", "-f", image_format, "-t", "none", "-i",
                                  "io_uring", "-s", 4096, "-S", step, "-c", requests, *words, image)
        seconds = float(re.search(r"completed in ([\d.]+) seconds", text).group(1))
        return requests / seconds, written

    @contextlib.contextmanager
    def serving(self, server, socket):
        """A server of an image, for as long as it is needed."""
        process = subprocess.Popen([str(word) for word in server], cwd=self.folder,
                                   stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{server}: serves nothing")
                time.sleep(0.01)
            yield
        finally:
            process.terminate()
            process.wait()
            socket.unlink(missing_ok=True)

    def line(self, name, unit, values, others, goal, most=False):
        """One comparison; goal is of the ratio, at least, or at most."""
        value, other = statistics.median(values), statistics.median(others)
        ratio = statistics.median(one / another for one, another in zip(values, others))
        is_met = ratio <= goal if most else ratio >= goal
        self.missed += not is_met
        print(f"{name:44} {unit:6} {value:10.1f}  {other:10.1f}  ratio {ratio:6.2f}  goal "
              f"{'<=' if most else '>='} {goal:5.2f} {'' if is_met else 'MISSED'}", flush=True)

    def bound(self, name, unit, values, most):
        """One figure with its bound."""
        value = statistics.median(values)
        self.missed += value > most
        print(f"{name:44} {unit:6} {value:10.2f}  worst {max(values):10.2f}  goal <= {most:5.2f} "
              f"{'' if value <= most else 'MISSED'}", flush=True)


def allocated(bench):
    """Reads and writes where everything has its place, against QEMU and against raw."""
    bench.create("full.qcow2", str(DISK))
    bench.fill("full.qcow2", "qcow2")
    bench.create("full.raw", str(DISK), "-f", "raw")
    bench.fill("full.raw", "raw")
    for name, words in (("read", ["-d", 32]), ("write", ["-w", "-d", 32])):
        ours, theirs, raw = [], [], []
        runs = [lambda: ours.append(bench.ours("full.qcow2", *words)[0]),
                lambda: theirs.append(bench.theirs("full.qcow2", *words)[0]),
                lambda: raw.append(bench.ours("full.raw", *words, image_format="raw")[0])]
        for turn in range(bench.rounds):
            for run in runs[turn % 3:] + runs[:turn % 3]:
                run()
        bench.line(f"4 KiB random {name}, allocated, against QEMU", "IOPS", ours, theirs, 1.0)
        bench.line(f"4 KiB random {name}, allocated, against raw", "IOPS", ours, raw, 0.9)


def snapshots(bench):
    """Writes in place of an image that has an internal snapshot, against one that has none."""
    bench.create("shared.qcow2", str(DISK))
    bench.fill("shared.qcow2", "qcow2")
    bench.call(bench.vm_disk, "snapshot", "-c", "one", "shared.qcow2")
    bench.fill("shared.qcow2", "qcow2")  # everything has a place of its own again
    with_one, without = [], []
    for _ in range(bench.rounds):
        with_one.append(bench.ours("shared.qcow2", "-w", "-d", 32)[0])
        without.append(bench.ours("full.qcow2", "-w", "-d", 32)[0])
    bench.line("4 KiB random write, with a snapshot, to none", "IOPS", with_one, without, 0.8)


def first_writes(bench):
    """4 KiB into an overlay of a full disk, which copies, or need not."""
    ours, theirs, amplification, amplification_theirs = [], [], [], []
    words = ["-w", "-d", 32]
    for _ in range(bench.rounds):
        image = bench.create("over.qcow2", "-b", "full.raw", "-F", "raw", "--static")
        speed, written, _ = bench.ours(image, *words)
        ours.append(speed)
        amplification.append(written / (bench.requests * 4096))
        image = bench.create_theirs("theirs.qcow2", "-b", "full.raw", "-F", "raw")
        speed, written = bench.theirs(image, *words, requests=bench.requests // 4)
        theirs.append(speed)
        amplification_theirs.append(written / (bench.requests // 4 * 4096))
    bench.line("4 KiB random first write into an overlay", "IOPS", ours, theirs, 3.0)
    bench.bound("  bytes written for a byte", "x", amplification, 1.2)
    print(f"  (QEMU: {statistics.median(amplification_theirs):.1f})")


def allocating(bench):
    """4 KiB writes, each into a cluster of its own, of an empty disk."""
    ours, theirs = [], []
    requests = min(bench.requests, DISK // 65536)
    for _ in range(bench.rounds):
        image = bench.create("empty.qcow2", str(DISK), "--static")
        ours.append(bench.ours(image, "-w", "-d", 32, step=65536, requests=requests)[0])
        image = bench.create_theirs("theirs.qcow2")
        theirs.append(bench.theirs(image, "-w", "-d", 32, step=65536, requests=requests)[0])
    bench.line("4 KiB allocating write", "IOPS", ours, theirs, 2.0)


def count_syncs(bench, *words):
    """How many barriers a program makes."""
    with tempfile.NamedTemporaryFile(mode="r") as log:
        bench.call("strace", "-f", "-qq", "-o", log.name, "-e", "trace=fdatasync,fsync", *words)
        return sum("resumed" not in row for row in log)


def barriers(bench):
    """Barriers for each flush of a guest that allocates all the time."""
    if shutil.which("strace") is None:
        print("barriers: skipped, strace is not installed")
        return
    flushes, every = 100, 8
    words = ["-w", "-c", flushes * every, "-d", 8, "-s", 4096, "-S", STEP, "-t", "none",
             f"--flush-interval={every}", "-f", "qcow2"]
    image = bench.create("empty.qcow2", str(DISK), "--static")
    ours = count_syncs(bench, bench.vm_disk, "bench", *words, "-i", "threads", image)
    image = bench.create_theirs("theirs.qcow2")
    theirs = count_syncs(bench, "qemu-img", "bench", *words, "-i", "threads", image)
    # Closing an image may take two more.
    bench.bound("barriers for a guest's flush", "", [(ours - 2) / flushes], 2.0)
    print(f"  (QEMU: {theirs / flushes:.2f})")


def make_chain(bench, depth):
    """Overlays on the full raw image, each with a few writes of its own."""
    below, below_format = "full.raw", "raw"
    for number in range(depth):
        image = bench.create(f"chain.{depth}.{number}.qcow2", "-b", below, "-F", below_format,
                             "--static")
        bench.call(bench.vm_disk, "bench", "-w", "-c", 64, "-d", 8, "-S", 16 << 20, "-o",
                   number * 4096 * 37 % (16 << 20), image)
        below, below_format = image, "qcow2"
    return below


def chains(bench):
    """What depth costs: reads, opening, memory."""
    one, hundred = make_chain(bench, 1), make_chain(bench, DEPTH_100)
    shallow, deep, cold, theirs, opened, memory = [], [], [], [], [], []
    warm = ("-d", 32, "--warm-up", 2 * bench.requests)
    for _ in range(bench.rounds):
        shallow.append(bench.ours(one, *warm)[0])
        speed, _, report = bench.ours(hundred, *warm)
        deep.append(speed)
        cold.append(bench.ours(hundred, "-d", 32, requests=bench.requests // 10)[0])
        opened.append(report["open_us"] / 1000)
        memory.append(report["memory_bytes"] / (1 << 20))
        theirs.append(bench.theirs(hundred, "-d", 32, requests=bench.requests // 10)[0])
    bench.line("4 KiB random read, 100 layers against 1", "IOPS", deep, shallow, 0.9)
    bench.line("4 KiB random read, 100 layers, against QEMU", "IOPS", deep, theirs, 1.0)
    bench.line("4 KiB first reads, 100 layers, against QEMU", "IOPS", cold, theirs, 1.0)
    bench.bound("open of 100 layers", "ms", opened, 10)
    bench.bound("memory of a process with 100 layers open", "MiB", memory, 192)


def nbd(bench):
    """The same client reads and writes the same image, served by nbdkit for ours, and by qemu-nbd."""
    if shutil.which("qemu-nbd") is None or shutil.which("nbdkit") is None:
        print("NBD: skipped, qemu-nbd or nbdkit is not installed")
        return
    ours, theirs = bench.folder / "ours.sock", bench.folder / "theirs.sock"
    servers = [
        [bench.vm_disk, "serve", "-w", "-s", ours, "full.qcow2"],
        ["qemu-nbd", "-t", "-f", "qcow2", "--cache=writeback", "-k", theirs,
         bench.create_theirs("theirs.qcow2")]]
    bench.fill("theirs.qcow2", "qcow2")
    for name, words in (("read", ["-d", 32]), ("write", ["-w", "-d", 32])):
        rates = {ours: [], theirs: []}
        for _ in range(bench.rounds):
            for (socket, got), server in zip(rates.items(), servers):
                with bench.serving(server, socket):
                    got.append(bench.theirs(f"nbd+unix:///?socket={socket}", *words,
                                            image_format="raw")[0])
        bench.line(f"4 KiB random {name} by NBD, against qemu-nbd", "IOPS", *rates.values(), 1.0)


def freeze(bench):
    """The switch of a disk to its next layer, without the drain; layer_bench says more."""
    program = bench.vm_disk.parents[1] / "bench" / "layer_bench"
    if not program.exists():
        print("freeze: skipped, layer_bench is not built")
        return
    text, _ = bench.call(program, bench.folder)
    for row in text.splitlines():
        found = re.match(r"switch.*depth +(\d+) .*p50 +([\d.]+)", row)
        if found:
            bench.bound(f"freeze, {found.group(1)} layers", "ms", [float(found.group(2))], 2.0)


def memory(bench):
    """Tables of a disk that was read all over: 512 MiB of them, of which 128 MiB stay."""
    bench.create("large.qcow2", "4T", "--static")
    used = [bench.ours("large.qcow2", "-d", 32, "--order", "random",
                       requests=max(bench.requests, 100000))[2]["memory_bytes"] / (1 << 20)
            for _ in range(bench.rounds)]
    bench.bound("memory of a process with 4 TiB open", "MiB", used, 160)


def main():
    """Runs them all."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="release")
    parser.add_argument("--folder", default="/var/tmp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--only", help="one of these: allocated is always run first")
    arguments = parser.parse_args()
    if shutil.which("qemu-img") is None:
        sys.exit("qemu-img is not installed (apt: qemu-utils)")
    with tempfile.TemporaryDirectory(prefix="disk_bench.", dir=arguments.folder) as folder:
        bench = Bench(arguments, folder)
        print(machine_line())
        print(f"{'':44} {'':6} {'ours':>10}  {'other':>10}")
        for part in (allocated, snapshots, first_writes, allocating, barriers, chains, memory, nbd, freeze):
            if arguments.only in (None, part.__name__) or part is allocated:
                part(bench)
    return bench.missed != 0


if __name__ == "__main__":
    sys.exit(main())
