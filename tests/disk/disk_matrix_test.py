#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Do QEMU, we and an independent reader agree on every image that any of us made or changed?

Random images of the option space are made by QEMU or by us and changed by both in turns; after each
turn qemu-img and the independent checker must find neither error nor leak, and QEMU, we and the
independent reader must see what a plain file holds that went through the same.

  disk_matrix_test.py [--seed N] [--cells N] [--operations N] [--turns N] [--all [--first N] [--end N]]

A failure prints the cell's seed; --cell SEED runs it alone, with --all one of the whole matrix. --all
alone runs that as a whole (hours), --first and --end a part of it.
"""

import argparse
import itertools
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

from ferrydisk import options as matrix
from ferrydisk.cell import Cell
from ferrydisk.programs import BUILD, Failure, Refused, has_qemu

SKIPPED = 77
SEED_STEP = 1000000
PROGRESS_CELLS = 100


def run_cell(seed, options, arguments, totals):
    """True when all agreed."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="disk_matrix.", dir=arguments.folder))
    chance = random.Random(seed)
    options = options or matrix.sample(chance)
    cell = Cell(folder, options, chance)
    trouble = None
    try:
        cell.run(arguments.turns, arguments.operations)
    except (Failure, Refused) as failure:
        trouble = str(failure)
    code = cell.finish()
    if trouble is None and code != 0:
        trouble = f"the exerciser ended with {code}"
    totals["operations"] += cell.done
    totals["cells"] += 1
    if trouble is not None:
        totals["failures"] += 1
        print(f"FAILED --cell {seed} ({options}): {trouble}", flush=True)
    if trouble is None or not arguments.keep:
        shutil.rmtree(folder)
    return trouble is None


def main():
    """Exit code 77 without QEMU's tools."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cell", type=int)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--operations", type=int, default=16)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--first", type=int, default=0, help="where --all begins")
    parser.add_argument("--end", type=int, help="where --all ends; the cell is not run")
    parser.add_argument("--keep", action="store_true", help="keep the files of a failed cell")
    arguments = parser.parse_args()
    arguments.folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    if not has_qemu():
        print("skipped: qemu-img and qemu-io are not installed (apt: qemu-utils)")
        return SKIPPED

    started = time.monotonic()
    totals = {"cells": 0, "operations": 0, "failures": 0}
    if arguments.cell is not None:
        options = list(matrix.everything())[arguments.cell % SEED_STEP] if arguments.all else None
        run_cell(arguments.cell, options, arguments, totals)
    elif arguments.all:
        for index, options in itertools.islice(enumerate(matrix.everything()), arguments.first,
                                               arguments.end):
            run_cell(arguments.seed * SEED_STEP + index, options, arguments, totals)
            if index % PROGRESS_CELLS == 0:
                print(f"cell {index}: {totals['failures']} failures", flush=True)
    else:
        for index in range(arguments.cells):
            run_cell(arguments.seed * SEED_STEP + index, None, arguments, totals)
    print(", ".join(f"{count} {name}" for name, count in totals.items()),
          f"in {time.monotonic() - started:.0f} s, built in {BUILD}")
    return 1 if totals["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
