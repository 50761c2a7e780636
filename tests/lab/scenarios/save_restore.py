# SPDX-License-Identifier: Apache-2.0
"""A guest under load is saved twice, killed and restored: full and incremental, memory and disk.

The second snapshot holds only what changed since the first. The guest's disk check remembers in
memory what it wrote to disk, so a snapshot whose memory and disk are of different instants fails.
"""

import time

from ferrylab.machine import Machine
from ferrylab.trouble import Failure

TITLE = "save, kill and restore under load"
MACHINE = Machine()
GONE_SECONDS = 6
CLOCK_TOLERANCE_SECONDS = 2


def run(trial):
    """Saves, saves again, kills, restores; then restores the older snapshot too."""
    trial.boot()
    trial.start_watch()
    first = trial.save()
    trial.verify()
    second = trial.save()
    before = trial.clock_difference()
    trial.kill()
    time.sleep(GONE_SECONDS)
    trial.restore(second)
    after = trial.clock_difference()
    if abs(after - before) > CLOCK_TOLERANCE_SECONDS:
        raise Failure(f"the guest's wall clock did not catch up: it was off by {before:.1f} s, "
                      f"then by {after:.1f} s")
    trial.kill()
    trial.restore(first)
