#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Layers are frozen and merged, and the power goes: is the disk there, and as it was promised?

The exerciser writes to a disk, switches it to overlays and merges sealed layers. What it changes in
the folder is recorded (record_files.c): writes, sizes, names, and what was made durable. From the
record come the states that a cut can leave: any prefix, and then any part of what was not durable,
file by file, sector by sector, name by name. In each the disk must open by the name that was the
newest promised one, hold in each sector what it held at the last flush or something from later, and
every layer of its chain must satisfy the independent checker.

FERRY_TEST_SEED selects others, FERRY_TEST_STATES how many states (100).
"""

import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ.get("FERRY_BUILD", "build/dev")).resolve()
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "disk"))
from ferrydisk.programs import Exerciser, Failure, Refused  # noqa: E402

SECTOR = 512
DISK_SECTORS = 1024
DISK_BYTES = DISK_SECTORS * SECTOR
SHARED = pathlib.Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")


class Recording:
    """A disk that changes, what it held after each step, and where in the record that was."""

    def __init__(self, folder, chance):
        self.folder = folder
        self.log = folder.with_name(folder.name + ".log")
        self.chance = chance
        self.now = [0] * DISK_SECTORS
        self.stamp = 1 << 20
        self.steps = []  # first byte, end byte, is_flush, sectors, name of the newest overlay
        self.top = "vm.qcow2"
        self.layers = 0
        self.exerciser = Exerciser(folder, {
            "LD_PRELOAD": str(BUILD / "tests" / "librecord-files.so"),
            "RECORD_FOLDER": str(folder), "RECORD_LOG": str(self.log)})
        self.exerciser.do("create", self.top, f"size={DISK_BYTES}", "version=3", "cluster_bits=16")
        self.start = {entry.name: (entry.stat().st_ino, entry.read_bytes())
                      for entry in folder.iterdir()}
        self.log.write_bytes(b"")
        self.exerciser.do("open", self.path(self.top), "qcow2", "rw")
        self.steps.append((0, 0, True, list(self.now), self.top))

    def path(self, name):
        """As vm-run names disks."""
        return self.folder / name

    def step(self, is_flush, *words):
        """One command, recorded."""
        before = self.log.stat().st_size
        self.exerciser.do(*words)
        self.steps.append((before, self.log.stat().st_size, is_flush, list(self.now), self.top))

    def write(self):
        """Sectors with stamps."""
        count = self.chance.randrange(1, 100)
        first = self.chance.randrange(DISK_SECTORS - count)
        self.now[first:first + count] = range(self.stamp, self.stamp + count)
        self.step(False, "write", first * SECTOR, count * SECTOR, self.stamp)
        self.stamp += count

    def switch(self):
        """Freezes the newest layer."""
        old = self.top
        self.layers += 1
        self.top = f"vm.{self.layers:06}.qcow2"
        self.step(True, "switch", self.path(old), self.path(self.top))

    def merge(self):
        """The newest sealed layers but one, into one."""
        newest = self.path(f"vm.{self.layers - 1:06}.qcow2")
        self.step(True, "merge", newest, 3)

    def run(self):
        """A disk's life."""
        for turn in range(9):
            for _ in range(self.chance.randrange(1, 5)):
                self.write()
            if self.chance.random() < 0.5:
                self.step(True, "flush")
            self.write()
            self.switch()
            if turn in (4, 8):
                self.merge()
        self.write()
        self.exerciser.do("close")
        return self.exerciser.finish()

    def records(self):
        """Words, bytes and where each ends."""
        data, at = self.log.read_bytes(), 0
        while at < len(data):
            end = data.index(b"\n", at)
            words = data[at:end].decode().split(" ")
            at = end + 1
            content = b""
            if words[0] == "write":
                content = data[at:at + int(words[3])]
                at += int(words[3])
            yield words, content, at


class State:
    """Files by inode, and names."""

    def __init__(self, start):
        self.files = {inode: bytearray(content) for inode, content in start.values()}
        self.names = {name: inode for name, (inode, _) in start.items()}

    def copy(self):
        """That can be changed alone."""
        other = State({})
        other.files = {inode: bytearray(content) for inode, content in self.files.items()}
        other.names = dict(self.names)
        return other

    def apply(self, words, content, keep):
        """One change; `keep` decides for each sector of a write."""
        kind = words[0]
        if kind == "create":
            self.files.setdefault(int(words[1]), bytearray())
            self.names[words[2]] = int(words[1])
        elif kind == "rename":
            if words[1] in self.names:
                self.names[words[2]] = self.names.pop(words[1])
        elif kind == "unlink":
            self.names.pop(words[1], None)
        elif kind in ("write", "size", "punch"):
            self.change(words, content, keep)

    def change(self, words, content, keep):
        """Of a file's content."""
        data, offset = self.files.setdefault(int(words[1]), bytearray()), int(words[2])
        if words[0] == "size":
            if keep():
                data[offset:] = bytes(max(0, offset - len(data)))
            return
        length = int(words[3])
        if words[0] == "punch":
            length = max(0, min(length, len(data) - offset))
            content = bytes(length)
        done = 0
        while done < length:
            part = min(length - done, SECTOR - (offset + done) % SECTOR)
            if keep():
                if len(data) < offset + done:
                    data.extend(bytes(offset + done - len(data)))
                data[offset + done:offset + done + part] = content[done:done + part]
            done += part


def is_made_durable(record, sync):
    """Does this sync cover that change? Making a file durable includes its size, not its name."""
    words = record[0]
    if words[0] in ("create", "rename", "unlink"):
        return sync[0] == "syncdir"
    return sync[0] == "sync" and words[1] == sync[1]


class Cuts:
    """All states that the record allows."""

    def __init__(self, recording, chance):
        self.recording = recording
        self.records = list(recording.records())
        self.chance = chance

    def state_at(self, cut):
        """After `cut` records: what is durable, and of the rest what chance keeps."""
        pending, state = [], State(self.recording.start)
        for record in self.records[:cut]:
            if record[0][0] in ("sync", "syncdir"):
                rest = []
                for other in pending:
                    if is_made_durable(other, record[0]):
                        state.apply(other[0], other[1], lambda: True)
                    else:
                        rest.append(other)
                pending = rest
            else:
                pending.append(record)
        self.lose(state, pending)
        return state

    def lose(self, state, pending):
        """Names are kept in order up to some point, as journals do; content in any part."""
        kept_names = self.chance.choice((0, len(pending), self.chance.randrange(len(pending) + 1)))
        percent = self.chance.choice((0, 50, 95, 100))
        lost = self.chance.choice([None] + [record[0][1] for record in pending])
        for index, (words, content, _) in enumerate(pending):
            if words[0] in ("create", "rename", "unlink"):
                if words[0] == "create":
                    state.files.setdefault(int(words[1]), bytearray())
                if index < kept_names:
                    state.apply(words, content, lambda: True)
            else:
                chance = 0 if words[1] == lost else percent
                state.apply(words, content, lambda: self.chance.randrange(100) < chance)

    def allowed(self, cut):
        """The steps of which a sector may be, and the promised name."""
        at = self.records[cut - 1][2] if cut else 0
        steps = self.recording.steps
        last = max(i for i, step in enumerate(steps) if step[0] <= at)
        flush = max(i for i, step in enumerate(steps) if step[2] and step[1] <= at)
        return steps[flush:last + 1], steps[flush][4]


class LayerCut(unittest.TestCase):
    """One recording and its cuts."""

    def folder(self, name):
        """That goes away."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"layer_cut_{name}.", dir=SHARED))
        self.addCleanup(shutil.rmtree, folder, True)
        return folder

    def judge(self, cuts, cut, exerciser, folder):
        """Opens what a cut left, and reads it."""
        for entry in folder.iterdir():
            entry.unlink()
        state = cuts.state_at(cut)
        for name, inode in state.names.items():
            (folder / name).write_bytes(state.files[inode])
        steps, top = cuts.allowed(cut)
        where = f"cut after {cut} of {len(cuts.records)} changes"
        self.assertIn(top, state.names, f"{where}: the disk is gone")
        try:
            exerciser.do("open", folder / top, "qcow2", "ro")
            exerciser.do("dump", folder / "dump")
            exerciser.do("close")
        except (Failure, Refused) as failure:
            self.fail(f"{where}: {failure}")
        data = (folder / "dump").read_bytes()
        for sector in range(DISK_SECTORS):
            stamp = int.from_bytes(data[sector * SECTOR:sector * SECTOR + 8], "little")
            if not any(step[3][sector] == stamp for step in steps):
                self.fail(f"{where}: sector {sector} holds {stamp:#x}, at the flush it was "
                          f"{steps[0][3][sector]:#x}")
        return self.check_chain(exerciser, folder, top, where)

    def check_chain(self, exerciser, folder, top, where):
        """Every layer that the disk consists of."""
        name, checked = top, 0
        while name:
            errors, _, hazards, first = exerciser.do("check", folder / name)[-1].split(" ", 3)
            self.assertEqual((errors, hazards), ("0", "0"), f"{where}: {name}: {first}")
            header = (folder / name).read_bytes()[:1024]
            offset = int.from_bytes(header[8:16], "big")
            length = int.from_bytes(header[16:20], "big")
            name = header[offset:offset + length].decode() if offset else None
            checked += 1
        return checked

    def test_a_disk_without_barriers_is_found_out(self):
        """The judges can fail: with all barriers taken from the record, something is lost."""
        recording = Recording(self.folder("disk"), random.Random(1))
        self.addCleanup(recording.log.unlink)
        recording.run()
        cuts, folder = Cuts(recording, random.Random(1)), self.folder("cut")
        cuts.records = [record for record in cuts.records if not record[0][0].startswith("sync")]
        exerciser = Exerciser(folder)
        self.addCleanup(exerciser.finish)
        with self.assertRaises(AssertionError):
            for cut in range(len(cuts.records), 0, -10):
                self.judge(cuts, cut, exerciser, folder)

    def test_frozen_and_merged_layers_survive_every_cut(self):
        """Sealed layers are what they were, and the newest one is what was promised."""
        seed = int(os.environ.get("FERRY_TEST_SEED", "4"))
        chance = random.Random(seed)
        recording = Recording(self.folder("disk"), chance)
        self.addCleanup(recording.log.unlink)
        self.assertEqual(recording.run(), 0)
        cuts, folder = Cuts(recording, chance), self.folder("cut")
        kinds = {record[0][0] for record in cuts.records}
        self.assertLessEqual({"write", "create", "rename", "sync", "syncdir"}, kinds)
        exerciser = Exerciser(folder)
        states, layers = int(os.environ.get("FERRY_TEST_STATES", "100")), 0
        for index in range(states):
            cut = len(cuts.records) * (index + 1) // states
            layers += self.judge(cuts, cut, exerciser, folder)
        exerciser.finish()
        print(f"{states} states of {len(cuts.records)} changes, {layers} layers checked, "
              f"seed {seed}", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
