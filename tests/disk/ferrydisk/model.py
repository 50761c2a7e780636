# SPDX-License-Identifier: Apache-2.0
"""What a disk should hold: a sparse raw file."""

import os
import shutil
import subprocess

SECTOR = 512
WINDOW_BYTES = 1 << 20


class Model:
    """A raw file, and which of its sectors may be zeros instead, because they were discarded."""

    def __init__(self, folder, name, size):
        self.folder = folder
        self.name = name
        self.size = size
        self.may_be_zero = set()
        self.file = open(folder / name, "w+b", buffering=0)
        self.file.truncate(size)

    def windows(self):
        """Where operations go: all of a small disk, three places of a large one."""
        if self.size <= 16 * WINDOW_BYTES:
            return [(0, self.size)] if self.size else []
        middle = self.size // 2 // SECTOR * SECTOR
        return [(0, WINDOW_BYTES), (middle, WINDOW_BYTES),
                (self.size - WINDOW_BYTES, WINDOW_BYTES)]

    def fill(self, data):
        """The start of the disk, from a base image."""
        self.file.seek(0)
        self.file.write(data[:self.size])

    def write_stamps(self, offset, length, stamp):
        """As the exerciser's `write`."""
        count = length // SECTOR
        data = b"".join((stamp + i).to_bytes(8, "little") * (SECTOR // 8) for i in range(count))
        self.put(offset, data)

    def put(self, offset, data):
        """New content, which is certain."""
        os.pwrite(self.file.fileno(), data, offset)
        if self.may_be_zero:
            first = offset // SECTOR
            self.may_be_zero.difference_update(range(first, first + len(data) // SECTOR))

    def discard(self, offset, length):
        """From now on old content or zeros."""
        self.may_be_zero.update(range(offset // SECTOR, (offset + length) // SECTOR))

    def settle(self, zero_sectors):
        """Which sectors were found to be zeros; gives one that must not be."""
        for sector in zero_sectors:
            if sector not in self.may_be_zero:
                return sector
            os.pwrite(self.file.fileno(), bytes(SECTOR), sector * SECTOR)
        self.may_be_zero.clear()
        return None

    def resize(self, size):
        """The disk grows with zeros, or loses its end."""
        self.file.truncate(size)
        self.size = size

    def copy_to(self, name):
        """For a snapshot."""
        subprocess.run(["cp", "--sparse=always", self.name, name], cwd=self.folder, check=True)

    def take_from(self, name, size):
        """A snapshot was applied."""
        self.file.close()
        shutil.copyfile(os.devnull, self.folder / self.name)
        subprocess.run(["cp", "--sparse=always", name, self.name], cwd=self.folder, check=True)
        self.file = open(self.folder / self.name, "r+b", buffering=0)
        self.size = size
        self.may_be_zero.clear()
