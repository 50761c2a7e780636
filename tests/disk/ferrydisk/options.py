# SPDX-License-Identifier: Apache-2.0
"""Which images there are: the axes of the matrix, and what can not be combined."""

import dataclasses
import itertools

KIB, MIB = 1 << 10, 1 << 20

CREATORS = ("qemu", "ours")
VERSIONS = (2, 3)
CLUSTER_BITS = (9, 12, 14, 16, 21)
REFCOUNT_BITS = (1, 2, 4, 8, 16, 32, 64)
BACKINGS = ("none", "raw", "short raw", "long raw", "zlib", "zstd", "plain 4k", "extended")
PREALLOCATIONS = ("off", "metadata", "falloc", "full")
SIZES = ("0", "512", "cs-512", "cs+512", "3M+1536", "6M", "1T+512", "huge")
CONTENTS = ("empty", "compressed")


@dataclasses.dataclass(frozen=True)
class Options:
    """One cell."""

    creator: str = "ours"
    version: int = 3
    cluster_bits: int = 16
    refcount_bits: int = 16
    has_lazy_refcounts: bool = False
    is_zstd: bool = False
    is_extended: bool = False
    is_static: bool = False
    preallocation: str = "off"
    backing: str = "none"
    content: str = "empty"
    size_name: str = "6M"
    snapshots: int = 0

    def is_possible(self):
        """Does the format allow it, and would it be made within reason?"""
        v2_only = self.version == 2 and (self.refcount_bits != 16 or self.has_lazy_refcounts or
                                         self.is_zstd or self.is_extended)
        small = self.is_extended and self.cluster_bits < 14
        placed = self.preallocation != "off" and (self.backing != "none" or
                                                  self.content != "empty" or self.is_static or
                                                  self.size() > 16 * MIB)
        shared = self.snapshots > 0 and self.refcount_bits < 4
        # A cluster of 512 bytes reaches 128 GiB with the largest L1 table.
        far = self.size() > 16 * MIB and self.cluster_bits < (21 if self.size_name == "huge" else 12)
        dense = self.content == "compressed" and (self.creator != "qemu" or
                                                  self.backing != "none" or
                                                  self.size() > 16 * MIB or self.size() < 1 * MIB or
                                                  self.refcount_bits < 8)
        still = self.is_static and (self.creator != "ours" or not self.is_extended or
                                    self.cluster_bits != 17)
        return not (v2_only or small or placed or shared or far or dense or still)

    def size(self):
        """In bytes."""
        cluster = 1 << self.cluster_bits
        return {"0": 0, "512": 512, "cs-512": cluster - 512, "cs+512": cluster + 512,
                "3M+1536": 3 * MIB + 1536, "6M": 6 * MIB, "1T+512": (1 << 40) + 512,
                "huge": (1 << 54) - 512}[self.size_name]

    def __str__(self):
        differs = [f"{field.name}={getattr(self, field.name)}"
                   for field in dataclasses.fields(self)
                   if getattr(self, field.name) != field.default or field.name == "creator"]
        return " ".join(differs)


def sample(random):
    """One cell by chance; unusual sizes and snapshots less often than usual ones."""
    while True:
        found = Options(
            creator=random.choice(CREATORS), version=random.choice((2, 3, 3, 3)),
            cluster_bits=random.choice((9, 12, 14, 16, 16, 17, 21)),
            refcount_bits=random.choice((16, 16, *REFCOUNT_BITS)),
            has_lazy_refcounts=random.random() < 0.25, is_zstd=random.random() < 0.3,
            is_extended=random.random() < 0.3, is_static=random.random() < 0.15,
            preallocation=random.choice(("off", "off", *PREALLOCATIONS)),
            backing=random.choice(("none", "none", *BACKINGS)),
            content=random.choice(("empty", "empty", "compressed")),
            size_name=random.choice(("3M+1536", "6M", "6M", *SIZES)),
            snapshots=random.choice((0, 0, 1, 2, 5)))
        if found.is_possible():
            return found


def everything():
    """Every cell but for sizes, places and snapshots, which take turns."""
    turns = itertools.cycle(itertools.product(SIZES, PREALLOCATIONS, (0, 1, 2, 5)))
    for cell in itertools.product(CREATORS, VERSIONS, (9, 12, 14, 16, 17, 21), REFCOUNT_BITS,
                                  (False, True), (False, True), (False, True), BACKINGS, CONTENTS):
        for _ in range(len(SIZES) * len(PREALLOCATIONS) * 4):
            size_name, preallocation, snapshots = next(turns)
            found = Options(creator=cell[0], version=cell[1], cluster_bits=cell[2],
                            refcount_bits=cell[3], has_lazy_refcounts=cell[4], is_zstd=cell[5],
                            is_extended=cell[6], backing=cell[7], content=cell[8],
                            preallocation=preallocation, size_name=size_name, snapshots=snapshots)
            if found.is_possible():
                yield found
                break
