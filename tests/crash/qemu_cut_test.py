#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Can the judges of power cuts fail? QEMU 7.2 is known to be unsafe in two ways; they must see both.

QEMU's own writes are recorded by its driver blklogwrites and judged as ours are. Plain writes must
be found sound. Going back to an internal snapshot leaves, for a while, entries that allow writing in
place to what the snapshot shares. Clusters that were zeroed or discarded are used for something else
before the change that freed them is durable, so that a cut shows foreign data.
"""

import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ.get("FERRY_BUILD", "build/dev"))
SECTOR = 512
DISK_SECTORS = 1024
CLUSTER_SECTORS = 8


class Recording:
    """An image that QEMU changes, with the log of its writes and the list of steps."""

    def __init__(self, folder, seed):
        self.folder = folder
        self.random = random.Random(seed)
        self.stamp = 1 << 20
        self.steps = []
        self.qemu = None
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k",
                        "disk.qcow2", str(DISK_SECTORS * SECTOR)], cwd=folder, check=True)
        shutil.copyfile(folder / "disk.qcow2", folder / "start.qcow2")
        (folder / "log").touch()

    def image_options(self):
        """The image over the driver that logs."""
        append = "on" if (self.folder / "log").stat().st_size else "off"
        return ("driver=qcow2,file.driver=blklogwrites,file.file.driver=file,"
                "file.file.filename=disk.qcow2,file.log.driver=file,file.log.filename=log,"
                f"file.log-append={append},discard=unmap")

    def log_bytes(self):
        """How much of the log belongs to what is over."""
        return (self.folder / "log").stat().st_size

    def command(self, text):
        """One command in qemu-io, which is started when it is needed; waits until it is over."""
        if self.qemu is None:
            self.qemu = subprocess.Popen(["qemu-io", "-t", "writeback", "-d", "unmap",
                                          "--image-opts", self.image_options()], cwd=self.folder,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT)
            self.answer()
        before = self.log_bytes()
        self.qemu.stdin.write(text.encode() + b"\n")
        self.qemu.stdin.flush()
        said = self.answer()
        if "failed" in said or "rror" in said:
            raise RuntimeError(f"qemu-io, {text}: {said}")
        return before, self.log_bytes()

    def answer(self):
        """What qemu-io says up to its next prompt."""
        said = b""
        while not said.endswith(b"qemu-io> "):
            byte = self.qemu.stdout.read(1)
            if not byte:
                raise RuntimeError(f"qemu-io died: {said.decode(errors='replace')}")
            said += byte
        return said.decode(errors="replace")

    def close(self):
        """Ends qemu-io, which flushes. What that writes belongs to no step."""
        if self.qemu is not None:
            self.qemu.communicate(b"quit\n")
            self.qemu = None

    def step(self, kind, first, count, stamp, where):
        """A line for the judge."""
        self.steps.append(f"{kind} {first} {count} {stamp} {where[0]} {where[1]}")

    def write(self, first, count):
        """Sectors that carry stamps."""
        data = b"".join((self.stamp + i).to_bytes(8, "little") * 64 for i in range(count))
        (self.folder / "pattern").write_bytes(data)
        where = self.command(f"write -s pattern {first * SECTOR} {count * SECTOR}")
        self.step("write", first, count, self.stamp, where)
        self.stamp += count

    def zero(self, first, count):
        """Whole clusters, which gives them back."""
        kind = self.random.choice(("write -z -u", "discard"))
        where = self.command(f"{kind} {first * SECTOR} {count * SECTOR}")
        self.step("zero", first, count, 0, where)

    def flush(self):
        """As a guest's."""
        self.step("flush", 0, 0, 0, self.command("flush"))

    def snapshot(self, kind, name):
        """Creates, applies or deletes."""
        self.close()
        before = self.log_bytes()
        subprocess.run(["qemu-img", "snapshot", "--image-opts", f"-{kind[0]}", name,
                        self.image_options()], cwd=self.folder, check=True)
        self.step(kind, name, 0, 0, (before, self.log_bytes()))

    def place(self, unit):
        """Where a request goes: a start and a length of whole units."""
        count = self.random.randrange(1, 48 // unit + 1) * unit
        return self.random.randrange((DISK_SECTORS - count) // unit + 1) * unit, count

    def judge(self, subsets=8):
        """Counts of states, errors, hazards, wrong content, and the first of each."""
        self.close()
        (self.folder / "steps").write_text("\n".join(self.steps) + "\n")
        done = subprocess.run([(BUILD / "tests" / "cut-judge").resolve(), "start.qcow2", "log",
                               "steps", str(subsets), "1"], cwd=self.folder, capture_output=True,
                              text=True, check=True)
        counts, *first = done.stdout.split("\n")
        words = counts.split()
        found = dict(zip(words[::2], map(int, words[1::2])))
        print(f"{counts}; {'; '.join(line for line in first if line)}", file=sys.stderr)
        return found


class QemuCut(unittest.TestCase):
    """What the judges say of QEMU."""

    def recording(self, seed):
        """In a folder that goes away."""
        folder = pathlib.Path(tempfile.mkdtemp(
            prefix="qemu_cut.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.addCleanup(shutil.rmtree, folder)
        recording = Recording(folder, seed)
        self.addCleanup(recording.close)
        return recording

    def test_plain_writes_are_sound(self):
        """Whole: no error, no hazard, nothing lost."""
        recording = self.recording(1)
        for _ in range(60):
            if recording.random.random() < 0.2:
                recording.flush()
            else:
                recording.write(*recording.place(1))
        found = recording.judge()
        self.assertGreater(found["states"], 200)
        self.assertEqual((found["errors"], found["hazards"], found["content"]), (0, 0, 0))

    def test_freed_clusters_are_used_too_early(self):
        """A cut shows data of another place."""
        wrong = 0
        for seed in range(4):
            recording = self.recording(seed)
            for _ in range(60):
                chance = recording.random.random()
                if chance < 0.1:
                    recording.flush()
                elif chance < 0.45:
                    recording.zero(*recording.place(CLUSTER_SECTORS))
                else:
                    recording.write(*recording.place(1))
            found = recording.judge()
            self.assertEqual(found["errors"], 0)
            wrong += found["content"]
        self.assertGreater(wrong, 0)

    def test_going_back_to_a_snapshot_is_hazardous(self):
        """Entries that allow writing in place to what the snapshot shares."""
        recording = self.recording(1)
        for turn in range(3):
            for _ in range(8):
                recording.write(*recording.place(1))
            recording.flush()
            recording.snapshot("create", f"s{turn}")
        for turn in range(3):
            for _ in range(4):
                recording.write(*recording.place(1))
            recording.snapshot("apply", f"s{turn}")
        found = recording.judge()
        self.assertGreater(found["hazards"], 0)

    def test_logs_are_read_as_they_are_laid_out(self):
        """The judge refuses what is no log."""
        recording = self.recording(1)
        (recording.folder / "log").write_bytes(struct.pack("<QQQI", 1, 1, 0, 512) + bytes(484))
        (recording.folder / "steps").write_text("")
        done = subprocess.run([(BUILD / "tests" / "cut-judge").resolve(), "start.qcow2", "log",
                               "steps", "1", "1"], cwd=recording.folder, capture_output=True,
                              text=True, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no log of writes", done.stderr)


if __name__ == "__main__":
    if not (shutil.which("qemu-img") and shutil.which("qemu-io")):
        print("skipped: qemu-img and qemu-io are not installed (apt: qemu-utils)")
        sys.exit(77)
    unittest.main()
